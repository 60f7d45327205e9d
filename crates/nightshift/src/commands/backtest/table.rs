//! Reading recorded files: plain or gzip, times in the forms that public data sets use.

use anyhow::{Context as _, Result};
use nightshift_model::Timestamp;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Opens a file, unpacking it when its name ends in `.gz`.
///
/// # Errors
/// When it cannot be opened.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let reader: Box<dyn Read> = if path.extension().is_some_and(|e| e == "gz") {
        Box::new(flate2::read::MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    Ok(Box::new(BufReader::with_capacity(1 << 18, reader)))
}

/// A CSV reader over a file.
///
/// # Errors
/// When it cannot be opened.
pub(super) fn csv(path: &Path) -> Result<csv::Reader<Box<dyn BufRead>>> {
    Ok(csv::ReaderBuilder::new().flexible(true).from_reader(open(path)?))
}

/// `YYYY-MM-DD HH:MM:SS[.f]`, ISO 8601, or unix seconds.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(secs) = text.parse::<f64>() {
        return Timestamp::from_secs_f64(secs);
    }
    let mut iso = text.replacen(' ', "T", 1);
    let has_zone = iso.ends_with(['Z', 'z']) || iso.get(19..).is_some_and(|tail| tail.contains(['+', '-']));
    if !has_zone {
        iso.push('Z');
    }
    Timestamp::parse_rfc3339(&iso).ok()
}

/// A value; `None` where it is missing or no number.
pub(super) fn value(text: &str) -> Option<f64> {
    let v: f64 = text.trim().parse().ok()?;
    v.is_finite().then_some(v)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_all_forms() {
        let want = Some(Timestamp::from_secs(1_396_310_400));
        for text in ["2014-04-01 00:00:00", "2014-04-01T00:00:00Z", "1396310400", "2014-04-01T02:00:00+02:00"] {
            assert_eq!(time(text), want, "{text}");
        }
        assert_eq!(time("2014-04-01 00:00:00.5").map(|t| t.millis()), Some(1_396_310_400_500));
        for bad in ["", "soon", "2014-04-01", "nan", "inf"] {
            assert_eq!(time(bad), None, "{bad}");
        }
        assert_eq!((value(""), value("nan"), value(" 2.5 ")), (None, None, Some(2.5)));
    }
}
