//! Wide tables of recorded metrics.

use std::collections::BTreeMap;

/// Columns of a wide table: by service and metric, values by row; `None` where there is no data.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Frame {
    /// Unix seconds of each row.
    pub timestamps: Vec<f64>,
    /// Values by service and metric, as many as there are rows.
    pub columns: BTreeMap<(String, String), Vec<Option<f64>>>,
}

impl Frame {
    /// A frame from a header (`timestamp`, then `SERVICE|METRIC` …) and rows of text fields. A column without a `|`
    /// and a row without a timestamp are left out; a field that is no finite number is no data.
    pub fn from_rows<S: AsRef<str>>(header: &[S], rows: impl IntoIterator<Item = Vec<S>>) -> Self {
        let mut out = Self::default();
        let keys: Vec<Option<(String, String)>> = header
            .iter()
            .skip(1)
            .map(|name| name.as_ref().split_once('|').map(|(s, m)| (s.to_owned(), m.to_owned())))
            .collect();
        for key in keys.iter().flatten() {
            out.columns.insert(key.clone(), Vec::new());
        }
        for row in rows {
            let number = |i: usize| row.get(i)?.as_ref().trim().parse::<f64>().ok().filter(|v| v.is_finite());
            let Some(at) = number(0) else { continue };
            out.timestamps.push(at);
            for (i, key) in keys.iter().enumerate() {
                if let Some(column) = key.as_ref().and_then(|k| out.columns.get_mut(k)) {
                    column.push(number(i + 1));
                }
            }
        }
        // A name that stands in the header twice must not shift its column.
        let rows = out.timestamps.len();
        out.columns.retain(|_, column| column.len() == rows);
        out
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &str> {
        self.columns.keys().map(|(service, _)| service.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_with_holes_and_doubles_is_read_as_far_as_it_goes() {
        let header = ["timestamp", "a|x", "b", "a|y|z"];
        let rows = vec![vec!["1", "2", "3", ""], vec!["", "9", "9", "9"], vec!["2", "NaN"]];
        let frame = Frame::from_rows(&header, rows);
        assert_eq!(frame.timestamps, [1.0, 2.0]);
        assert_eq!(frame.columns[&("a".into(), "x".into())], [Some(2.0), None]);
        assert_eq!(frame.columns[&("a".into(), "y|z".into())], [None, None]);
        assert_eq!(frame.columns.len(), 2);
    }
}
