//! A place in somebody else's JSON: every question names the place and what was expected when the answer is no.

use serde_json::{Map, Value};

/// Why a document has another shape than its tool writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at {place}: {what}")]
pub struct Shape {
    /// Path in the document; `.` is the whole.
    pub place: String,
    /// What stands there and what was expected.
    pub what: String,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    pub value: &'a Value,
    pub place: String,
}

/// Longest piece of a strange value that an error quotes.
const MOST_QUOTED_CHARS: usize = 60;

/// `NaN` and infinities, which JSON does not have and several tools write; [`lenient`] makes them texts.
fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

impl<'a> Node<'a> {
    pub fn root(value: &'a Value) -> Self {
        Self { value, place: ".".to_owned() }
    }

    /// An error here.
    pub fn expected<T>(&self, what: &str) -> Result<T, Shape> {
        let shown: String = self.value.to_string().chars().take(MOST_QUOTED_CHARS).collect();
        Err(Shape { place: self.place.clone(), what: format!("is {shown}, expected {what}") })
    }

    fn below(&self, step: &str, value: &'a Value) -> Self {
        let place = match (self.place.as_str(), step.starts_with('[')) {
            (".", true) => format!(".{step}"),
            (".", false) => step.to_owned(),
            (place, true) => format!("{place}{step}"),
            (place, false) => format!("{place}.{step}"),
        };
        Self { value, place }
    }

    pub fn fields(&self) -> Result<&'a Map<String, Value>, Shape> {
        match self.value {
            Value::Object(fields) => Ok(fields),
            _ => self.expected("an object"),
        }
    }

    /// A field that is there and not null.
    pub fn find(&self, name: &str) -> Option<Self> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        Some(self.below(name, value))
    }

    /// A field that must be there.
    pub fn get(&self, name: &str) -> Result<Self, Shape> {
        self.fields()?;
        match self.find(name) {
            Some(found) => Ok(found),
            None => Err(Shape { place: self.place.clone(), what: format!("has no field {name:?}") }),
        }
    }

    pub fn list(&self) -> Result<Vec<Self>, Shape> {
        match self.value {
            Value::Array(items) => {
                Ok(items.iter().enumerate().map(|(i, item)| self.below(&format!("[{i}]"), item)).collect())
            }
            _ => self.expected("a list"),
        }
    }

    /// Fields of an object with their names.
    pub fn entries(&self) -> Result<Vec<(&'a str, Self)>, Shape> {
        Ok(self.fields()?.iter().map(|(name, value)| (name.as_str(), self.below(name, value))).collect())
    }

    pub fn text(&self) -> Result<&'a str, Shape> {
        match self.value {
            Value::String(text) => Ok(text),
            _ => self.expected("a text"),
        }
    }

    pub fn number(&self) -> Result<f64, Shape> {
        match as_number(self.value) {
            Some(number) => Ok(number),
            None => self.expected("a number"),
        }
    }

    pub fn count(&self) -> Result<u64, Shape> {
        match self.value.as_u64() {
            Some(count) => Ok(count),
            None => self.expected("a whole number from 0"),
        }
    }

    /// A list of numbers.
    pub fn numbers(&self) -> Result<Vec<f64>, Shape> {
        let Value::Array(items) = self.value else { return self.expected("a list of numbers") };
        let number = |(i, item): (usize, &'a Value)| match as_number(item) {
            Some(number) => Ok(number),
            None => self.below(&format!("[{i}]"), item).expected("a number"),
        };
        items.iter().enumerate().map(number).collect()
    }
}

/// Parses JSON, with `NaN`, `Infinity` and `-Infinity` outside of texts read as texts of that name.
pub(super) fn lenient(content: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(content).or_else(|strict| {
        let quoted = with_quoted_numbers(content);
        if quoted.len() == content.len() {
            return Err(strict);
        }
        serde_json::from_slice(&quoted)
    })
}

/// The same bytes with words that stand for numbers in quotes.
fn with_quoted_numbers(content: &[u8]) -> Vec<u8> {
    const WORDS: [(&[u8], &[u8]); 6] = [
        (b"NaN", b"\"NaN\""),
        (b"-NaN", b"\"NaN\""),
        (b"Infinity", b"\"Infinity\""),
        (b"-Infinity", b"\"-Infinity\""),
        (b"inf", b"\"Infinity\""),
        (b"nan", b"\"NaN\""),
    ];
    let mut quoted = Vec::with_capacity(content.len());
    let (mut i, mut in_text) = (0, false);
    while i < content.len() {
        let byte = content[i];
        if in_text {
            let taken = if byte == b'\\' { 2.min(content.len() - i) } else { 1 };
            in_text = byte != b'"';
            quoted.extend(&content[i..i + taken]);
            i += taken;
        } else if let Some((word, text)) = WORDS.iter().find(|(word, _)| content[i..].starts_with(word)) {
            quoted.extend(*text);
            i += word.len();
        } else {
            in_text = byte == b'"';
            quoted.push(byte);
            i += 1;
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn places_are_named() {
        let value = json!({"a": [{"b": 1}, {"b": "x"}], "n": null});
        let root = Node::root(&value);
        let items = root.get("a").and_then(|a| a.list()).expect("a list");
        assert_eq!(items[0].get("b").and_then(|b| b.number()), Ok(1.0));
        let error = items[1].get("b").and_then(|b| b.number()).expect_err("a text");
        assert_eq!(error.to_string(), "at a[1].b: is \"x\", expected a number");
        assert!(root.find("n").is_none());
        assert_eq!(root.get("n").expect_err("null").to_string(), "at .: has no field \"n\"");
        assert_eq!(root.numbers().expect_err("an object").place, ".");
        assert_eq!(root.get("a").expect("there").numbers().expect_err("objects").place, "a[0]");
    }

    #[test]
    fn numbers_that_json_does_not_have() {
        let value = lenient(br#"{"NaN\"": NaN, "b": [-Infinity, Infinity], "c": "NaN inf"}"#).expect("read");
        assert_eq!(value, json!({"NaN\"": "NaN", "b": ["-Infinity", "Infinity"], "c": "NaN inf"}));
        assert!(lenient(b"{\"a\": Nan}").is_err());
        assert!(lenient(b"").is_err());
    }
}
