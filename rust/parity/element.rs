//! Element types that can be compared: i8, u8, i32 and f32.

/// How far two different values are apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distance {
    /// `|a - b|` in float64; exact for all element types here but f32, where it is rounded once.
    pub absolute: f64,
    /// Representable values between them plus one: units for integers, units in the last place for floats.
    pub steps: u64,
}

/// A number that [`crate::parity::compare`] understands.
pub trait Element: Copy {
    /// Whether distances in units in the last place mean something.
    const IS_FLOAT: bool;

    /// Bit equality.
    fn same_bits(self, other: Self) -> bool;

    /// How far apart, or `None` if one of them is NaN or infinite.
    fn distance(self, other: Self) -> Option<Distance>;

    /// `|self|` in float64.
    fn magnitude(self) -> f64;

    /// As text for a person; floats with their bits.
    fn describe(self) -> String;
}

macro_rules! integer_element {
    ($($type:ty),*) => {$(
        impl Element for $type {
            const IS_FLOAT: bool = false;

            fn same_bits(self, other: Self) -> bool {
                self == other
            }

            fn distance(self, other: Self) -> Option<Distance> {
                let steps = i64::from(self).abs_diff(i64::from(other));
                // At most 2^32: exact in float64.
                Some(Distance { absolute: steps as f64, steps })
            }

            fn magnitude(self) -> f64 {
                f64::from(self).abs()
            }

            fn describe(self) -> String {
                self.to_string()
            }
        }
    )*};
}

integer_element!(i8, u8, i32);

/// Position of a finite float on the line of all representable ones; -0 and +0 are both 0.
fn position(value: f32) -> i64 {
    let magnitude = i64::from(value.to_bits() & 0x7fff_ffff);
    if value.is_sign_negative() { -magnitude } else { magnitude }
}

impl Element for f32 {
    const IS_FLOAT: bool = true;

    fn same_bits(self, other: Self) -> bool {
        self.to_bits() == other.to_bits()
    }

    fn distance(self, other: Self) -> Option<Distance> {
        (self.is_finite() && other.is_finite()).then(|| Distance {
            absolute: (f64::from(self) - f64::from(other)).abs(),
            steps: position(self).abs_diff(position(other)),
        })
    }

    fn magnitude(self) -> f64 {
        f64::from(self).abs()
    }

    fn describe(self) -> String {
        format!("{self:?} (0x{:08x})", self.to_bits())
    }
}
