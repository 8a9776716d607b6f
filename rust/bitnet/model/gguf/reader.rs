//! From bytes to metadata and checked tensor positions.
//!
//! Everything in the file is hostile until compared: counts with the bytes that are left, sides and sizes in checked
//! arithmetic, offsets with the alignment, with each other and with the end. Memory stays below a small multiple of the
//! file, because no container is made larger than what the rest of the file could fill.

use super::cursor::Cursor;
use super::error::{GgufErrorKind, quoted};
use super::types::{Evidence, TensorType, n_values};
use super::value::{Metadata, Value, later_duplicate};
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, MAX_DIMS, VERSION};

/// A tensor's name, shape, type and place.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    pub(super) name: String,
    pub(super) dims: [u64; MAX_DIMS],
    pub(super) n_dims: usize,
    pub(super) tensor_type: TensorType,
    pub(super) offset: u64,
    pub(super) n_bytes: u64,
}

impl TensorInfo {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its sides, the contiguous one (K, inputs) first, then M (outputs). At most 4; none for a single value.
    pub fn dims(&self) -> &[u64] {
        &self.dims[..self.n_dims]
    }

    /// Inputs: the contiguous side, 1 for a single value.
    pub fn cols(&self) -> usize {
        self.dims().first().map_or(1, |&k| k as usize)
    }

    /// Outputs: the product of all other sides.
    pub fn rows(&self) -> usize {
        self.dims().iter().skip(1).product::<u64>() as usize
    }

    /// How its values are stored.
    pub fn tensor_type(&self) -> TensorType {
        self.tensor_type
    }

    /// Offset of its first byte from the start of the data section.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Its size in bytes, without padding.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }
}

/// What stands before the data section.
pub(super) struct Parsed {
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<TensorInfo>,
    /// Positions in `tensors`, ordered by name.
    pub(super) by_name: Vec<usize>,
    pub(super) data_start: u64,
    pub(super) alignment: u64,
}

/// A tensor as the file lists it, before its type is decided.
struct Listed {
    name: String,
    dims: [u64; MAX_DIMS],
    n_dims: usize,
    type_id: u32,
    offset: u64,
    /// Offset in the file of its entry, for errors.
    entry: u64,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, GgufErrorKind> {
    let mut cursor = Cursor::new(bytes);
    read_version(&mut cursor)?;
    // A tensor entry has at least a name length, a number of sides, a type and an offset; a key a length, a type, a byte.
    let n_tensors = cursor.count(24, "number of tensors")?;
    let n_keys = cursor.count(13, "number of keys")?;
    let (metadata, alignment) = read_metadata(&mut cursor, n_keys)?;
    let listed = read_tensor_list(&mut cursor, n_tensors)?;
    let data_start = cursor.offset().next_multiple_of(alignment);
    let data_bytes = (bytes.len() as u64).checked_sub(data_start);
    let (tensors, by_name) = match data_bytes {
        Some(data_bytes) => {
            place_tensors(listed, data_bytes, data_start, &Evidence::new(&metadata, alignment), alignment)?
        }
        None if listed.is_empty() => (Vec::new(), Vec::new()),
        None => {
            return Err(GgufErrorKind::malformed(
                cursor.offset(),
                "data section",
                format!("the end of the file at byte {}", bytes.len()),
                format!("tensor data from byte {data_start}"),
            ));
        }
    };
    Ok(Parsed { metadata, tensors, by_name, data_start, alignment })
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<(), GgufErrorKind> {
    let magic = cursor.array::<4>("magic")?;
    if magic != MAGIC {
        let found = format!("{:?}", magic.escape_ascii().to_string());
        return Err(GgufErrorKind::malformed(0, "magic", found, "\"GGUF\""));
    }
    let version = cursor.u32("version")?;
    if version == VERSION {
        return Ok(());
    }
    let found = match version.swap_bytes() {
        swapped @ 1..=VERSION => format!("a big-endian file of version {swapped}"),
        _ => format!("version {version}"),
    };
    Err(GgufErrorKind::malformed(4, "version", found, format!("version {VERSION}, little-endian")))
}

/// Keys and values, and the alignment that stands among them.
fn read_metadata(cursor: &mut Cursor<'_>, n_keys: usize) -> Result<(Metadata, u64), GgufErrorKind> {
    // Counts are bounded by the file; growing step by step would hold up to three times as much.
    let mut metadata = Metadata::with_capacity(n_keys);
    let mut alignment = DEFAULT_ALIGNMENT;
    let mut offsets = Vec::with_capacity(n_keys);
    for index in 0..n_keys {
        let at = cursor.offset();
        let key = cursor.string("key").map_err(|error| error.inside(&format!("metadata entry {index}")))?;
        let read = |cursor: &mut Cursor<'_>| {
            let type_id = cursor.u32("value type")?;
            Value::read(cursor, type_id)
        };
        let value = read(cursor).map_err(|error| error.inside(&format!("key {}", quoted(key))))?;
        if key == ALIGNMENT_KEY {
            alignment = read_alignment(&value).map_err(|found| {
                GgufErrorKind::malformed(at, format!("key {}", quoted(key)), found, "a power of two as a U32")
            })?;
        }
        offsets.push(at);
        metadata.push(key, value);
    }
    match metadata.duplicate() {
        None => Ok((metadata, alignment)),
        Some((index, key)) => Err(GgufErrorKind::malformed(
            offsets[index],
            format!("key {}", quoted(key)),
            "a key that stands earlier too",
            "every key once",
        )),
    }
}

/// A usable alignment, or what stands there instead.
pub(super) fn read_alignment(value: &Value) -> Result<u64, String> {
    match value {
        &Value::U32(alignment) if alignment.is_power_of_two() => Ok(alignment.into()),
        other => Err(brief(other)),
    }
}

/// A value in a few words: hostile arrays and strings may be long.
fn brief(value: &Value) -> String {
    match value {
        Value::Array(array) => format!("an array of {}", array.len()),
        Value::String(text) => format!("a string of {} bytes", text.len()),
        other => format!("{other:?}"),
    }
}

fn read_tensor_list(cursor: &mut Cursor<'_>, n_tensors: usize) -> Result<Vec<Listed>, GgufErrorKind> {
    let mut listed = Vec::with_capacity(n_tensors);
    for index in 0..n_tensors {
        let entry = cursor.offset();
        let name = cursor.string("name").map_err(|error| error.inside(&format!("tensor entry {index}")))?;
        let tensor = read_tensor(cursor, name, entry)
            .map_err(|error| error.inside(&format!("tensor {}", quoted(name))))?;
        listed.push(tensor);
    }
    match later_duplicate(listed.len(), |index| &listed[index].name) {
        None => Ok(listed),
        Some(index) => Err(GgufErrorKind::malformed(
            listed[index].entry,
            format!("tensor {}", quoted(&listed[index].name)),
            "a name that stands earlier too",
            "every name once",
        )),
    }
}

fn read_tensor(cursor: &mut Cursor<'_>, name: &str, entry: u64) -> Result<Listed, GgufErrorKind> {
    let at = cursor.offset();
    let n_dims = cursor.u32("number of sides")? as usize;
    if n_dims > MAX_DIMS {
        let found = format!("{n_dims}");
        return Err(GgufErrorKind::malformed(at, "number of sides", found, format!("at most {MAX_DIMS}")));
    }
    let at = cursor.offset();
    let mut dims = [1; MAX_DIMS];
    for side in &mut dims[..n_dims] {
        *side = cursor.u64("side")?;
    }
    n_values(&dims[..n_dims])
        .map_err(|why| GgufErrorKind::malformed(at, "sides", why, "1 to 2^60 values"))?;
    let type_id = cursor.u32("type")?;
    let offset = cursor.u64("offset")?;
    Ok(Listed { name: name.to_string(), dims, n_dims, type_id, offset, entry })
}

/// Decides every type and checks every place. Tensors may stand in any order and with gaps between them.
fn place_tensors(
    listed: Vec<Listed>,
    data_bytes: u64,
    data_start: u64,
    evidence: &Evidence,
    alignment: u64,
) -> Result<(Vec<TensorInfo>, Vec<usize>), GgufErrorKind> {
    let mut by_offset: Vec<usize> = (0..listed.len()).collect();
    by_offset.sort_unstable_by_key(|&index| (listed[index].offset, index));
    let mut ends = vec![0_u64; listed.len()];
    for (position, &index) in by_offset.iter().enumerate() {
        ends[index] =
            by_offset.get(position + 1).map_or(data_bytes, |&next| listed[next].offset.min(data_bytes));
    }
    let mut tensors = Vec::with_capacity(listed.len());
    for (tensor, &end) in listed.into_iter().zip(&ends) {
        let place = || format!("tensor {}", quoted(&tensor.name));
        let fault = |found, expected| GgufErrorKind::malformed(tensor.entry, place(), found, expected);
        let Listed { offset, type_id, n_dims, dims, .. } = tensor;
        if offset % alignment != 0 {
            return Err(fault(
                format!("offset {offset}"),
                format!("a multiple of the alignment {alignment}"),
            ));
        }
        if offset >= data_bytes {
            let expected = format!("less than the {data_bytes} bytes of data from byte {data_start} on");
            return Err(fault(format!("offset {offset}"), expected));
        }
        let (tensor_type, n_bytes) = evidence
            .decide(type_id, &dims[..n_dims], end - offset)
            .map_err(|refusal| fault(refusal.found, refusal.expected))?;
        tensors.push(TensorInfo { name: tensor.name, dims, n_dims, tensor_type, offset, n_bytes });
    }
    let mut by_name: Vec<usize> = (0..tensors.len()).collect();
    by_name.sort_unstable_by(|&a, &b| tensors[a].name.cmp(&tensors[b].name));
    Ok((tensors, by_name))
}
