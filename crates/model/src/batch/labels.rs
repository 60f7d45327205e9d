//! Labels in the wire form of Prometheus' remote write: `Label { name = 1, value = 2 }` fields with tag 1, by name.

use super::wire;

/// The name of the label that holds the metric's name.
pub const NAME: &str = "__name__";

/// Iterates over the labels of a wire form. Ends early, with an `Err`, where the bytes are no labels.
#[derive(Debug, Clone)]
pub struct Labels<'a> {
    rest: &'a [u8],
}

/// Over the labels of `bytes`.
pub const fn iter(bytes: &[u8]) -> Labels<'_> {
    Labels { rest: bytes }
}

impl<'a> Iterator for Labels<'a> {
    type Item = Result<(&'a str, &'a str), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let one = self.one();
        if one.is_err() {
            self.rest = &[];
        }
        Some(one)
    }
}

impl<'a> Labels<'a> {
    fn one(&mut self) -> Result<(&'a str, &'a str), &'static str> {
        const BROKEN: &str = "labels are not protobuf";
        if wire::varint(&mut self.rest).ok_or(BROKEN)? != u64::from(wire::tag(1, wire::LEN)) {
            return Err("labels hold a field that is no label");
        }
        let mut label = wire::bytes(&mut self.rest).ok_or(BROKEN)?;
        let (mut name, mut value) = ("", "");
        while !label.is_empty() {
            let tag = wire::varint(&mut label).ok_or(BROKEN)?;
            match tag {
                0x0a => name = text(&mut label)?,
                0x12 => value = text(&mut label)?,
                _ => wire::skip(&mut label, (tag & 7) as u8).ok_or(BROKEN)?,
            }
        }
        Ok((name, value))
    }
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, &'static str> {
    let bytes = wire::bytes(rest).ok_or("labels are not protobuf")?;
    std::str::from_utf8(bytes).map_err(|_| "a label is not UTF-8")
}

/// Appends one label.
pub fn push(out: &mut Vec<u8>, name: &str, value: &str) {
    let varint_len = |n: usize| (64 - (n as u64 | 1).leading_zeros() as usize).div_ceil(7);
    let len = 2 + varint_len(name.len()) + name.len() + varint_len(value.len()) + value.len();
    out.push(wire::tag(1, wire::LEN));
    wire::put_varint(out, len as u64);
    for (field, text) in [(1, name), (2, value)] {
        out.push(wire::tag(field, wire::LEN));
        wire::put_varint(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
}

/// The wire form of these labels, sorted by name; a name that comes twice keeps its first value, an empty value
/// means that the label is absent.
pub fn encode<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut sorted: Vec<_> = labels.into_iter().filter(|(n, v)| !n.is_empty() && !v.is_empty()).collect();
    sorted.sort_by_key(|(n, _)| *n);
    sorted.dedup_by_key(|(n, _)| *n);
    let mut out = Vec::with_capacity(sorted.iter().map(|(n, v)| n.len() + v.len() + 8).sum());
    for (name, value) in sorted {
        push(&mut out, name, value);
    }
    out
}

/// The value of one label; `None` when absent or the bytes are no labels.
pub fn get<'a>(bytes: &'a [u8], name: &str) -> Option<&'a str> {
    iter(bytes).map_while(Result::ok).find(|(n, _)| *n == name).map(|(_, v)| v)
}

/// The metric's name, empty when it has none.
pub fn metric_name(bytes: &[u8]) -> &str {
    get(bytes, NAME).unwrap_or("")
}
