//! Protobuf by hand, as far as remote write needs it: no allocation, no copy.

/// Why bytes are no remote write request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WireError(pub &'static str);

/// Bytes end within a field, or a number is longer than ten bytes.
pub(crate) const BROKEN: WireError = WireError("request is not protobuf");

/// Reads a varint from the front of `rest`.
#[inline]
pub(crate) fn varint(rest: &mut &[u8]) -> Result<u64, WireError> {
    let (&first, tail) = rest.split_first().ok_or(BROKEN)?;
    if first < 0x80 {
        *rest = tail;
        return Ok(u64::from(first));
    }
    let mut v = 0u64;
    for (i, &b) in rest.iter().enumerate().take(10) {
        if i == 9 && b > 1 {
            return Err(BROKEN);
        }
        v |= u64::from(b & 0x7f) << (7 * i);
        if b < 0x80 {
            *rest = &rest[i + 1..];
            return Ok(v);
        }
    }
    Err(BROKEN)
}

/// Reads a length and that many bytes.
#[inline]
pub(crate) fn bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], WireError> {
    let n = usize::try_from(varint(rest)?).map_err(|_| BROKEN)?;
    let (head, tail) = rest.split_at_checked(n).ok_or(BROKEN)?;
    *rest = tail;
    Ok(head)
}

/// Reads a `double`.
#[inline]
pub(crate) fn double(rest: &mut &[u8]) -> Result<f64, WireError> {
    let (head, tail) = rest.split_first_chunk::<8>().ok_or(BROKEN)?;
    *rest = tail;
    Ok(f64::from_le_bytes(*head))
}

/// Skips a field whose tag was read.
pub(crate) fn skip(rest: &mut &[u8], tag: u64) -> Result<(), WireError> {
    match tag & 7 {
        0 => varint(rest).map(|_| ()),
        1 => double(rest).map(|_| ()),
        2 => bytes(rest).map(|_| ()),
        5 => rest.split_at_checked(4).map(|(_, tail)| *rest = tail).ok_or(BROKEN),
        _ => Err(BROKEN),
    }
}

/// Reads a `Sample { double value = 1; int64 timestamp = 2 }` (the same in both versions), time in milliseconds.
#[inline]
pub(crate) fn sample(mut rest: &[u8]) -> Result<(i64, f64), WireError> {
    let (mut at_ms, mut value) = (0, 0.0);
    while !rest.is_empty() {
        match varint(&mut rest)? {
            0x09 => value = double(&mut rest)?,
            0x10 => at_ms = varint(&mut rest)? as i64,
            tag => skip(&mut rest, tag)?,
        }
    }
    Ok((at_ms, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_bytes_are_refused() {
        for bad in [&[][..], &[0x80], &[0xff; 11], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]] {
            assert_eq!(varint(&mut &bad[..]), Err(BROKEN), "{bad:?}");
        }
        assert_eq!(varint(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01][..]), Ok(u64::MAX));
        assert_eq!(bytes(&mut &[5, 1, 2][..]), Err(BROKEN));
        assert_eq!(double(&mut &[0; 7][..]), Err(BROKEN));
        for wire_type in [3, 4, 6, 7] {
            assert_eq!(skip(&mut &[0; 20][..], wire_type), Err(BROKEN));
        }
        assert_eq!(sample(&[0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Ok((-1, 0.0)));
    }
}
