//! Metadata: keys and typed values, in the order of the file.

use super::cursor::Cursor;
use super::error::GgufErrorKind;

/// A metadata value. Numbers keep the width that the file gives them.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Type id 0.
    U8(u8),
    /// Type id 1.
    I8(i8),
    /// Type id 2.
    U16(u16),
    /// Type id 3.
    I16(i16),
    /// Type id 4.
    U32(u32),
    /// Type id 5.
    I32(i32),
    /// Type id 6.
    F32(f32),
    /// Type id 7; one byte, 0 or 1.
    Bool(bool),
    /// Type id 8.
    String(String),
    /// Type id 9.
    Array(Array),
    /// Type id 10.
    U64(u64),
    /// Type id 11.
    I64(i64),
    /// Type id 12.
    F64(f64),
}

/// An array value: its elements share one type. Kept unboxed, so that it takes about as much memory as in the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Of [`Value::U8`].
    U8(Vec<u8>),
    /// Of [`Value::I8`].
    I8(Vec<i8>),
    /// Of [`Value::U16`].
    U16(Vec<u16>),
    /// Of [`Value::I16`].
    I16(Vec<i16>),
    /// Of [`Value::U32`].
    U32(Vec<u32>),
    /// Of [`Value::I32`].
    I32(Vec<i32>),
    /// Of [`Value::F32`].
    F32(Vec<f32>),
    /// Of [`Value::Bool`].
    Bool(Vec<bool>),
    /// Of [`Value::String`].
    String(Vec<String>),
    /// Of arrays, which may differ in type and length.
    Array(Vec<Array>),
    /// Of [`Value::U64`].
    U64(Vec<u64>),
    /// Of [`Value::I64`].
    I64(Vec<i64>),
    /// Of [`Value::F64`].
    F64(Vec<f64>),
}

/// Deepest nesting of arrays that is read or written. The public tools write none inside another.
pub const MAX_ARRAY_DEPTH: usize = 8;

const ARRAY_TYPE_ID: u32 = 9;

impl Value {
    /// The number that stands for this type in a file.
    pub fn type_id(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::String(_) => 8,
            Self::Array(_) => ARRAY_TYPE_ID,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
        }
    }

    /// The value as a count: any integer type, not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::U64(v) => Some(v),
            Self::I8(v) => v.try_into().ok(),
            Self::I16(v) => v.try_into().ok(),
            Self::I32(v) => v.try_into().ok(),
            Self::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }

    /// The value as a float: F32 as it is, F64 rounded.
    pub fn as_f32(&self) -> Option<f32> {
        match *self {
            Self::F32(v) => Some(v),
            Self::F64(v) => Some(v as f32),
            _ => None,
        }
    }

    /// The value as text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value as a flag.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(flag) => Some(flag),
            _ => None,
        }
    }

    /// The value as an array.
    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Self::Array(array) => Some(array),
            _ => None,
        }
    }

    pub(super) fn read(cursor: &mut Cursor<'_>, type_id: u32) -> Result<Self, GgufErrorKind> {
        const PLACE: &str = "value";
        Ok(match type_id {
            0 => Self::U8(u8::from_le_bytes(cursor.array(PLACE)?)),
            1 => Self::I8(i8::from_le_bytes(cursor.array(PLACE)?)),
            2 => Self::U16(u16::from_le_bytes(cursor.array(PLACE)?)),
            3 => Self::I16(i16::from_le_bytes(cursor.array(PLACE)?)),
            4 => Self::U32(u32::from_le_bytes(cursor.array(PLACE)?)),
            5 => Self::I32(i32::from_le_bytes(cursor.array(PLACE)?)),
            6 => Self::F32(f32::from_le_bytes(cursor.array(PLACE)?)),
            7 => {
                let at = cursor.offset();
                let [byte] = cursor.array(PLACE)?;
                Self::Bool(read_bool(byte, at)?)
            }
            8 => Self::String(cursor.string(PLACE)?.to_string()),
            ARRAY_TYPE_ID => Self::Array(Array::read(cursor, 1)?),
            10 => Self::U64(u64::from_le_bytes(cursor.array(PLACE)?)),
            11 => Self::I64(i64::from_le_bytes(cursor.array(PLACE)?)),
            12 => Self::F64(f64::from_le_bytes(cursor.array(PLACE)?)),
            other => return Err(unknown_type(cursor, "value type", other)),
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::U8(v) => out.extend(v.to_le_bytes()),
            Self::I8(v) => out.extend(v.to_le_bytes()),
            Self::U16(v) => out.extend(v.to_le_bytes()),
            Self::I16(v) => out.extend(v.to_le_bytes()),
            Self::U32(v) => out.extend(v.to_le_bytes()),
            Self::I32(v) => out.extend(v.to_le_bytes()),
            Self::F32(v) => out.extend(v.to_le_bytes()),
            Self::Bool(v) => out.push(u8::from(*v)),
            Self::String(v) => write_string(v, out),
            Self::Array(v) => v.write(out),
            Self::U64(v) => out.extend(v.to_le_bytes()),
            Self::I64(v) => out.extend(v.to_le_bytes()),
            Self::F64(v) => out.extend(v.to_le_bytes()),
        }
    }
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::String(v) => v.len(),
            Self::Array(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number that stands for the elements' type in a file.
    pub fn element_type_id(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::String(_) => 8,
            Self::Array(_) => ARRAY_TYPE_ID,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
        }
    }

    /// Nesting: 1 where the elements are not arrays.
    pub fn depth(&self) -> usize {
        match self {
            Self::Array(arrays) => 1 + arrays.iter().map(Self::depth).max().unwrap_or(0),
            _ => 1,
        }
    }

    fn read(cursor: &mut Cursor<'_>, depth: usize) -> Result<Self, GgufErrorKind> {
        if depth > MAX_ARRAY_DEPTH {
            return Err(GgufErrorKind::malformed(
                cursor.offset(),
                "array",
                format!("arrays nested {depth} deep"),
                format!("at most {MAX_ARRAY_DEPTH}"),
            ));
        }
        let element = cursor.u32("array element type")?;
        Ok(match element {
            0 => Self::U8(scalars(cursor, u8::from_le_bytes)?),
            1 => Self::I8(scalars(cursor, i8::from_le_bytes)?),
            2 => Self::U16(scalars(cursor, u16::from_le_bytes)?),
            3 => Self::I16(scalars(cursor, i16::from_le_bytes)?),
            4 => Self::U32(scalars(cursor, u32::from_le_bytes)?),
            5 => Self::I32(scalars(cursor, i32::from_le_bytes)?),
            6 => Self::F32(scalars(cursor, f32::from_le_bytes)?),
            7 => {
                let count = cursor.count(1, "array length")?;
                let at = cursor.offset();
                let bytes = cursor.take(count as u64, "array")?;
                Self::Bool(
                    (at..).zip(bytes).map(|(at, &byte)| read_bool(byte, at)).collect::<Result<_, _>>()?,
                )
            }
            8 => {
                let count = cursor.count(8, "array length")?;
                let mut strings = Vec::with_capacity(count);
                for _ in 0..count {
                    strings.push(cursor.string("array element")?.to_string());
                }
                Self::String(strings)
            }
            ARRAY_TYPE_ID => {
                // An inner array has at least its element type and its length.
                let count = cursor.count(12, "array length")?;
                let mut arrays = Vec::with_capacity(count);
                for _ in 0..count {
                    arrays.push(Self::read(cursor, depth + 1)?);
                }
                Self::Array(arrays)
            }
            10 => Self::U64(scalars(cursor, u64::from_le_bytes)?),
            11 => Self::I64(scalars(cursor, i64::from_le_bytes)?),
            12 => Self::F64(scalars(cursor, f64::from_le_bytes)?),
            other => return Err(unknown_type(cursor, "array element type", other)),
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.element_type_id().to_le_bytes());
        out.extend((self.len() as u64).to_le_bytes());
        match self {
            Self::U8(v) => out.extend(v),
            Self::I8(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
            Self::U16(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
            Self::I16(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
            Self::U32(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
            Self::I32(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
            Self::F32(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
            Self::Bool(v) => out.extend(v.iter().map(|&x| u8::from(x))),
            Self::String(v) => v.iter().for_each(|x| write_string(x, out)),
            Self::Array(v) => v.iter().for_each(|x| x.write(out)),
            Self::U64(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
            Self::I64(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
            Self::F64(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        }
    }
}

/// Keys and values in the order of the file. Keys are unique in what a reader returns; a writer refuses others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
}

impl Metadata {
    /// No entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// No entries, and room for `n`.
    pub(super) fn with_capacity(n: usize) -> Self {
        Self { entries: Vec::with_capacity(n) }
    }

    /// Adds an entry at the end.
    pub fn push(&mut self, key: impl Into<String>, value: Value) {
        self.entries.push((key.into(), value));
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Every key and its value, in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The later one of two entries with the same key, by its position, and the key.
    pub(super) fn duplicate(&self) -> Option<(usize, &str)> {
        let index = later_duplicate(self.entries.len(), |index| &self.entries[index].0)?;
        Some((index, &self.entries[index].0))
    }
}

/// Position of a name that stands earlier too, among `n` names. Sorts positions, so hostile counts cost n log n.
pub(super) fn later_duplicate<'a>(n: usize, name: impl Fn(usize) -> &'a str) -> Option<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_unstable_by(|&a, &b| name(a).cmp(name(b)).then(a.cmp(&b)));
    order.windows(2).find(|pair| name(pair[0]) == name(pair[1])).map(|pair| pair[1])
}

pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Elements of `N` bytes each, preceded by their number.
fn scalars<const N: usize, T>(
    cursor: &mut Cursor<'_>,
    from: fn([u8; N]) -> T,
) -> Result<Vec<T>, GgufErrorKind> {
    let count = cursor.count(N as u64, "array length")?;
    let bytes = cursor.take((count * N) as u64, "array")?;
    Ok(bytes.as_chunks::<N>().0.iter().map(|&chunk| from(chunk)).collect())
}

fn read_bool(byte: u8, at: u64) -> Result<bool, GgufErrorKind> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(GgufErrorKind::malformed(at, "boolean", format!("{other}"), "0 or 1")),
    }
}

fn unknown_type(cursor: &Cursor<'_>, place: &str, found: u32) -> GgufErrorKind {
    GgufErrorKind::malformed(cursor.offset() - 4, place, format!("{found}"), "0 to 12")
}
