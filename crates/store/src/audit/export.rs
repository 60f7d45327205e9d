//! A chain as a file: JSON lines that can be verified without a database and read into another one.
//!
//! ```text
//! {"nightshift_chain":1,"tenant":"default","count":2,"hash":"9f…"}
//! {"seq":1,"body":"AQAAAAdkZWZhdWx0…","hash":"3c…"}
//! {"seq":2,"body":"…","hash":"9f…"}
//! ```
//!
//! Bodies are base64 of exactly the hashed bytes; hashes are lower-case hexadecimal.

use super::{Fault, PAGE, Walk};
use crate::head::{from_hex, to_hex};
use crate::{BODY_BYTES_MAX, ChainHead, ChainLink, Store, StoreError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Read, Write};

/// Longest line of an export: the largest body in base64, and the words around it.
pub const EXPORT_LINE_BYTES_MAX: usize = BODY_BYTES_MAX / 3 * 4 + 1024;

/// Version of the form.
const VERSION: u32 = 1;

/// Why an export was not written, read, or believed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store failed.
    #[error("read or write the store")]
    Store(#[from] StoreError),
    /// The file failed.
    #[error("read or write the export")]
    Io(#[from] std::io::Error),
    /// A line is not what it should be.
    #[error("line {line}: {why}")]
    Line {
        /// From 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// A link is damaged.
    #[error("line {line}: {fault}")]
    Damaged {
        /// From 1.
        line: u64,
        /// What is wrong.
        fault: Fault,
    },
    /// It is whole but not what is wanted.
    #[error("{0}")]
    Refused(String),
}

/// What an export holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportSummary {
    /// Whose chain.
    pub tenant: String,
    /// Where it ends.
    pub head: ChainHead,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    nightshift_chain: u32,
    tenant: String,
    count: u64,
    hash: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    seq: u64,
    body: String,
    hash: String,
}

/// Writes a tenant's chain as it is now. What is damaged is written too: that is for the reader to find.
///
/// # Errors
/// `Store`, `Io`; `Refused` when the chain shrinks meanwhile.
pub async fn export(
    store: &dyn Store,
    tenant: &str,
    out: &mut (dyn Write + Send),
) -> Result<ExportSummary, ExportError> {
    let head = store.chain_head(tenant).await?;
    let header =
        Header { nightshift_chain: VERSION, tenant: tenant.into(), count: head.count, hash: to_hex(&head.hash) };
    put(out, &header)?;
    let mut written = 0;
    while written < head.count {
        let page =
            store.chain(tenant, written + 1, PAGE.min(usize::try_from(head.count - written).unwrap_or(PAGE))).await?;
        if page.is_empty() {
            return Err(ExportError::Refused(format!("the chain ends at {written}, before its head, {}", head.count)));
        }
        for link in page {
            put(out, &Line { seq: link.seq, body: STANDARD.encode(&link.body), hash: to_hex(&link.hash) })?;
            written = link.seq;
        }
    }
    out.flush()?;
    Ok(ExportSummary { tenant: tenant.into(), head })
}

fn put(out: &mut (dyn Write + Send), line: &impl Serialize) -> Result<(), ExportError> {
    let mut json = serde_json::to_vec(line).map_err(std::io::Error::from)?;
    json.push(b'\n');
    Ok(out.write_all(&json)?)
}

/// Verifies an export by itself, and against a head that somebody kept. Memory stays below two lines.
///
/// # Errors
/// `Line` or `Damaged` at the first bad line, `Refused` when it is whole but not what `head` says.
pub fn verify_export(input: impl BufRead, head: Option<ChainHead>) -> Result<ExportSummary, ExportError> {
    let mut reader = Reader::open(input)?;
    let tenant = reader.header.tenant.clone();
    let mut walk = Walk::new(&tenant, head);
    while let Some(link) = reader.next_link()? {
        walk.step(&link).map_err(|fault| ExportError::Damaged { line: reader.line, fault })?;
    }
    if walk.end != reader.head {
        let (said, found) = (super::text(reader.head), super::text(walk.end));
        return Err(ExportError::Refused(format!("the first line says the chain ends at {said}, it ends at {found}")));
    }
    if let Some(fault) = walk.outside_fault() {
        return Err(ExportError::Refused(fault.to_string()));
    }
    Ok(ExportSummary { head: walk.end, tenant })
}

/// Reads an export into the tenant that it names, which must be empty, or hold a beginning of the same chain (an
/// import that was broken off). Nothing is believed: verify first, then import what was verified.
///
/// # Errors
/// `Refused` when the tenant has another chain; `Line`, `Damaged`; `Store`.
pub async fn import(store: &dyn Store, input: impl BufRead + Send) -> Result<ExportSummary, ExportError> {
    let mut reader = Reader::open(input)?;
    let tenant = reader.header.tenant.clone();
    let there = store.chain_head(&tenant).await?;
    let mut walk = Walk::new(&tenant, Some(there));
    let (mut page, mut bytes) = (Vec::new(), 0);
    while let Some(link) = reader.next_link()? {
        walk.step(&link).map_err(|fault| ExportError::Damaged { line: reader.line, fault })?;
        if link.seq == there.count {
            same_chain(&walk)?;
        }
        if link.seq > there.count {
            bytes += link.body.len();
            page.push(link);
        }
        if page.len() >= PAGE || bytes >= BODY_BYTES_MAX {
            store.append_links(&tenant, std::mem::take(&mut page)).await?;
            bytes = 0;
        }
    }
    same_chain(&walk)?;
    if walk.end != reader.head {
        return Err(ExportError::Refused(format!("the export ends at {} of {}", walk.end.count, reader.head.count)));
    }
    if !page.is_empty() {
        store.append_links(&tenant, page).await?;
    }
    Ok(ExportSummary { head: walk.end, tenant })
}

fn same_chain(walk: &Walk<'_>) -> Result<(), ExportError> {
    match walk.outside_fault() {
        None => Ok(()),
        Some(_) => {
            let why = format!("tenant `{}` has a chain of its own: import into an empty store", walk.tenant);
            Err(ExportError::Refused(why))
        }
    }
}

/// Reads lines of bounded length.
struct Reader<R> {
    input: R,
    header: Header,
    head: ChainHead,
    line: u64,
}

impl<R: BufRead> Reader<R> {
    fn open(mut input: R) -> Result<Self, ExportError> {
        let bad = |why: String| ExportError::Line { line: 1, why };
        let text = line(&mut input, 1)?.ok_or_else(|| bad("the file is empty".into()))?;
        let header = serde_json::from_slice::<Header>(&text)
            .map_err(|e| bad(format!("is not the first line of a nightshift export: {e}")))?;
        if header.nightshift_chain != VERSION {
            let found = header.nightshift_chain;
            return Err(bad(format!("is an export of version {found}, this program knows {VERSION}")));
        }
        crate::append::check_tenant(&header.tenant).map_err(|e| bad(e.to_string()))?;
        let hash = from_hex(&header.hash).ok_or_else(|| bad("its hash is not 64 hexadecimal digits".into()))?;
        let head = ChainHead { count: header.count, hash };
        Ok(Self { input, header, head, line: 1 })
    }

    fn next_link(&mut self) -> Result<Option<ChainLink>, ExportError> {
        self.line += 1;
        let at = self.line;
        let bad = |why: String| ExportError::Line { line: at, why };
        let Some(text) = line(&mut self.input, at)? else { return Ok(None) };
        let read = serde_json::from_slice::<Line>(&text).map_err(|e| bad(format!("is not a link: {e}")))?;
        let body = STANDARD.decode(&read.body).map_err(|e| bad(format!("its body is not base64: {e}")))?;
        let hash = from_hex(&read.hash).ok_or_else(|| bad("its hash is not 64 hexadecimal digits".into()))?;
        Ok(Some(ChainLink { seq: read.seq, body, hash }))
    }
}

/// The next line without its end; `None` after the last.
fn line(input: &mut impl BufRead, number: u64) -> Result<Option<Vec<u8>>, ExportError> {
    let mut text = Vec::new();
    let limit = EXPORT_LINE_BYTES_MAX as u64 + 1;
    if input.by_ref().take(limit).read_until(b'\n', &mut text)? == 0 {
        return Ok(None);
    }
    if text.pop_if(|b| *b == b'\n').is_none() {
        let long = text.len() > EXPORT_LINE_BYTES_MAX;
        let why = if long { format!("is longer than {EXPORT_LINE_BYTES_MAX} bytes") } else { "ends early".into() };
        return Err(ExportError::Line { line: number, why });
    }
    Ok(Some(text))
}

/// For fuzzing: any bytes are either a whole chain or refused.
#[doc(hidden)]
pub fn fuzz_audit_export(bytes: &[u8]) {
    if let Ok(summary) = verify_export(bytes, None) {
        assert!(summary.head.count == 0 || bytes.len() > 100, "a link takes more than this");
    }
    drop(crate::parse_head(bytes));
}
