//! Template mining: lines that differ only in their parameters share a template.
//!
//! Lives here: grouping of masked forms, refinement, bounds. Never here: what a parameter looks like (`mask`), rates
//! and anomalies (`detector`).
//!
//! The idea is Drain's (He et al., ICWS 2017): lines with the same number of tokens that agree in most of them are one
//! template. Instead of a tree that is walked for every line, the hit path is one hash of the masked form. A form that
//! is new is looked up among its *neighbours*, the forms that differ in exactly one token: an additive hash makes
//! "this form with token i left out" a subtraction, so all neighbours of a form are found in time linear in its
//! tokens. Enough different words in one place make that place a parameter; how many depends on how much the words
//! look like identifiers.

use super::mask::{Masker, WILD, separates};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use std::hash::{BuildHasherDefault, Hasher};

mod saved;

pub use saved::SavedMiner;

/// A template's name: the hash of the masked form that it began with. Survives refinement and restart.
pub type TemplateId = u64;

/// What a line was taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TemplateRef {
    /// Name of the template.
    pub id: TemplateId,
    /// Whether no line before was like it.
    pub is_new: bool,
}

/// Bounds and sensitivity of the miner.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct MinerConfig {
    /// Bytes of a line that are looked at; what follows is ignored and counted.
    #[schemars(range(min = 256, max = 65536))]
    pub line_bytes_max: usize,
    /// Templates kept at most; the eighth that was not seen for longest leaves when it is full.
    #[schemars(range(min = 64, max = 1_000_000))]
    pub templates_max: usize,
    /// Different plain words in one place that make the place a parameter. Words that look like identifiers count
    /// for more.
    #[schemars(range(min = 2, max = 8))]
    pub words_min: u8,
}

impl Default for MinerConfig {
    fn default() -> Self {
        Self { line_bytes_max: 8 << 10, templates_max: 16_384, words_min: 5 }
    }
}

/// Counters of the miner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinerStats {
    /// Lines learned.
    pub lines: u64,
    /// Lines whose masked form was new.
    pub new_forms: u64,
    /// Templates joined by refinement.
    pub joined: u64,
    /// Templates that left because the miner was full.
    pub evicted: u64,
    /// Lines longer than the bound.
    pub cut: u64,
}

/// Most tokens of a form; the rest of a longer one is one parameter.
const TOKENS_MAX: usize = 512;
/// Members that a neighbourhood remembers.
const SLOT: usize = 8;
/// Refined templates that are compared with a new form at most.
const SCAN_MAX: usize = 256;
/// Hash of a token that is a parameter.
const WILD_HASH: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A separator.
    Sep,
    /// A parameter.
    Wild,
    /// A plain word.
    Plain,
    /// A name in parts: `com.example.thing`, or one with a parameter in it.
    Dotted,
    /// A word with a digit: `eth0`.
    Numbered,
    /// Unit of a size or a time.
    Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    hash: u64,
    kind: Kind,
}

/// One template.
#[derive(Debug, Clone)]
struct Template {
    id: TemplateId,
    /// Sum over its tokens; see [`mix`].
    sum: u64,
    tokens: Box<[Token]>,
    form: Box<[u8]>,
    /// The template that it was joined into, itself when none.
    root: u32,
    count: u64,
    last: u64,
    alive: bool,
    refined: bool,
}

/// Forms that differ in one place.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    n: u8,
    members: [u32; SLOT],
}

/// The keys of the miner's maps are hashes already.
#[derive(Debug, Clone, Copy, Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, v: u64) {
        self.0 = v;
    }
}

type HashOf<V> = HashMap<u64, V, BuildHasherDefault<Ready>>;

/// Learns templates from lines. Deterministic: the same lines in the same order give the same templates.
#[derive(Debug, Clone)]
pub struct TemplateMiner {
    config: MinerConfig,
    masker: Masker,
    /// Hash of a masked form to its template.
    forms: HashOf<u32>,
    /// Sum of tokens to its template, live ones only.
    by_sum: HashOf<u32>,
    slots: HashOf<Slot>,
    /// Refined templates by number of tokens.
    refined: HashMap<u32, Vec<u32>>,
    templates: Vec<Template>,
    live: usize,
    scratch: Vec<Token>,
    joins: Vec<(TemplateId, TemplateId)>,
    stats: MinerStats,
    rebuilt: u64,
}

/// What token `hash` at place `i` adds to the sum of its form.
#[inline]
fn mix(hash: u64, i: usize) -> u64 {
    let x = u128::from(hash ^ (i as u64).wrapping_mul(0xa076_1d64_78bd_642f)) * 0xe703_7ed1_a0b4_28db_u128;
    (x >> 64) as u64 ^ x as u64
}

fn sum_of(tokens: &[Token]) -> u64 {
    tokens.iter().enumerate().fold(tokens.len() as u64, |sum, (i, t)| sum.wrapping_add(mix(t.hash, i)))
}

fn kind_of(word: &[u8]) -> Kind {
    if word == [WILD] {
        return Kind::Wild;
    }
    if word.len() <= 3 && UNITS.contains(&word) {
        return Kind::Unit;
    }
    let (mut dotted, mut numbered) = (false, false);
    for (i, b) in word.iter().enumerate() {
        dotted |= matches!(b, b'/' | b'@' | &WILD) || (*b == b'.' && i > 0 && i + 1 < word.len());
        numbered |= b.is_ascii_digit();
    }
    if dotted {
        Kind::Dotted
    } else if numbered {
        Kind::Numbered
    } else {
        Kind::Plain
    }
}

/// Units: two of them in one place after a number are part of the parameter.
const UNITS: &[&[u8]] = &[b"B", b"KB", b"MB", b"GB", b"TB", b"KiB", b"MiB", b"GiB", b"TiB", b"ns", b"us", b"ms", b"s"];

/// Calls `f` with each token's bytes; every separator is a token.
fn for_each_token<'a>(form: &'a [u8], mut f: impl FnMut(&'a [u8], bool)) {
    let mut i = 0;
    while i < form.len() {
        let start = i;
        while i < form.len() && !separates(form[i]) {
            i += 1;
        }
        if i > start {
            f(&form[start..i], false);
        }
        if i < form.len() {
            f(&form[i..=i], true);
            i += 1;
        }
    }
}

fn token_at(form: &[u8], i: usize) -> &[u8] {
    let (mut at, mut found): (usize, &[u8]) = (0, &[]);
    for_each_token(form, |text, _| {
        if at == i {
            found = text;
        }
        at += 1;
    });
    found
}

fn tokenize(form: &[u8], out: &mut Vec<Token>) {
    out.clear();
    for_each_token(form, |text, sep| {
        if out.len() < TOKENS_MAX {
            let kind = if sep { Kind::Sep } else { kind_of(text) };
            let hash = if kind == Kind::Wild { WILD_HASH } else { xxhash_rust::xxh3::xxh3_64(text) };
            out.push(Token { hash, kind });
        } else {
            out[TOKENS_MAX - 1] = Token { hash: WILD_HASH, kind: Kind::Wild };
        }
    });
}

impl TemplateMiner {
    /// An empty miner.
    pub fn new(config: MinerConfig) -> Self {
        Self {
            masker: Masker::new(config.line_bytes_max.clamp(256, 64 << 10)),
            config,
            forms: HashMap::default(),
            by_sum: HashMap::default(),
            slots: HashMap::default(),
            refined: HashMap::new(),
            templates: Vec::new(),
            live: 0,
            scratch: Vec::new(),
            joins: Vec::new(),
            stats: MinerStats::default(),
            rebuilt: 0,
        }
    }

    /// Learns one line.
    #[inline]
    pub fn learn(&mut self, line: &str) -> TemplateRef {
        self.learn_bytes(line.as_bytes())
    }

    /// Learns one line of any bytes.
    #[inline]
    pub fn learn_bytes(&mut self, line: &[u8]) -> TemplateRef {
        let (slot, is_new) = self.learn_slot(line);
        TemplateRef { id: self.templates[slot as usize].id, is_new }
    }

    /// Learns one line of any bytes; tells the place of its template, which holds until [`Self::rebuilt`] changes.
    #[inline]
    pub(super) fn learn_slot(&mut self, line: &[u8]) -> (u32, bool) {
        self.stats.lines += 1;
        self.stats.cut += u64::from(line.len() > self.config.line_bytes_max);
        let form = self.masker.mask(line);
        let key = xxhash_rust::xxh3::xxh3_64(form);
        if let Some(&slot) = self.forms.get(&key) {
            let root = self.root(slot);
            let t = &mut self.templates[root as usize];
            t.count += 1;
            t.last = self.stats.lines;
            return (root, false);
        }
        self.learn_form(key)
    }

    /// Name of the template at a place.
    pub(super) fn id_at(&self, slot: u32) -> Option<TemplateId> {
        self.templates.get(slot as usize).map(|t| t.id)
    }

    /// How often places were given anew.
    pub(super) const fn rebuilt(&self) -> u64 {
        self.rebuilt
    }

    #[inline]
    fn root(&self, mut slot: u32) -> u32 {
        loop {
            let up = self.templates[slot as usize].root;
            if up == slot {
                return slot;
            }
            slot = up;
        }
    }

    /// The form in the masker's buffer was not seen before.
    #[cold]
    fn learn_form(&mut self, key: u64) -> (u32, bool) {
        self.stats.new_forms += 1;
        if self.live >= self.config.templates_max.max(64) || self.forms.len() >= self.config.templates_max.max(64) * 8 {
            self.evict();
        }
        let form: Box<[u8]> = self.masker.last().into();
        let mut tokens = std::mem::take(&mut self.scratch);
        tokenize(&form, &mut tokens);
        let sum = sum_of(&tokens);
        let found = self.by_sum.get(&sum).copied().or_else(|| self.matching(&tokens));
        if let Some(slot) = found {
            self.scratch = tokens;
            self.generalise(slot, &form);
            self.forms.insert(key, slot);
            let t = &mut self.templates[slot as usize];
            t.count += 1;
            t.last = self.stats.lines;
            return (slot, false);
        }
        let slot = self.templates.len() as u32;
        self.templates.push(Template {
            id: key,
            sum,
            tokens: tokens.as_slice().into(),
            form,
            root: slot,
            count: 1,
            last: self.stats.lines,
            alive: true,
            refined: false,
        });
        self.scratch = tokens;
        self.live += 1;
        self.forms.insert(key, slot);
        self.by_sum.insert(sum, slot);
        let joined = self.refine(slot);
        // What was joined into an older template on arrival is no news.
        (joined, joined == slot)
    }

    /// The refined template with the most words in common that `tokens` are an instance of.
    fn matching(&self, tokens: &[Token]) -> Option<u32> {
        let mut best = None;
        for &slot in self.refined.get(&(tokens.len() as u32))?.iter().take(SCAN_MAX) {
            let t = &self.templates[slot as usize];
            let fits = t
                .tokens
                .iter()
                .zip(tokens)
                .all(|(a, b)| a.hash == b.hash || (a.kind == Kind::Wild && b.kind != Kind::Sep));
            if fits {
                let literal = t.tokens.iter().filter(|t| t.kind != Kind::Wild).count();
                if best.is_none_or(|(most, _)| literal > most) {
                    best = Some((literal, slot));
                }
            }
        }
        best.map(|(_, slot)| slot)
    }

    /// Enters `slot` into its neighbourhoods and joins those that are full. Returns the template that it is in now.
    fn refine(&mut self, slot: u32) -> u32 {
        let mut slot = slot;
        // Each round joins at least one template or ends.
        'again: loop {
            let t = &self.templates[slot as usize];
            let (sum, n) = (t.sum, t.tokens.len());
            let words = t.tokens.iter().filter(|t| !matches!(t.kind, Kind::Sep | Kind::Wild)).count();
            for i in 0..n {
                let token = self.templates[slot as usize].tokens[i];
                if token.kind == Kind::Sep {
                    continue;
                }
                let gap = sum.wrapping_sub(mix(token.hash, i));
                let others = words - usize::from(token.kind != Kind::Wild);
                if others == 0 {
                    continue;
                }
                let entry = self.slots.entry(gap).or_default();
                let mut members = *entry;
                // Members that were joined, evicted or refined since are no neighbours any more.
                let mut n_live = 0;
                for k in 0..members.n as usize {
                    let m = members.members[k];
                    let t = &self.templates[m as usize];
                    let still = t.alive
                        && m != slot
                        && t.tokens.len() == n
                        && t.sum.wrapping_sub(mix(t.tokens[i].hash, i)) == gap;
                    if still {
                        members.members[n_live] = m;
                        n_live += 1;
                    }
                }
                if n_live < SLOT {
                    members.members[n_live] = slot;
                    n_live += 1;
                }
                members.n = n_live as u8;
                *entry = members;
                let group = &members.members[..n_live];
                if n_live >= 2 && self.is_parameter(group, i, others) {
                    let group = group.to_vec();
                    slot = self.join(&group, i);
                    continue 'again;
                }
            }
            return slot;
        }
    }

    /// Whether the words of these forms at place `i` are values of one parameter.
    fn is_parameter(&self, group: &[u32], i: usize, others: usize) -> bool {
        let mut weight = 0;
        for &m in group {
            weight += match self.templates[m as usize].tokens[i].kind {
                Kind::Wild => WILD_WEIGHT,
                Kind::Unit => UNIT_WEIGHT,
                Kind::Numbered => NUMBERED_WEIGHT,
                Kind::Dotted => DOTTED_WEIGHT,
                Kind::Plain | Kind::Sep => PLAIN_WEIGHT,
            };
        }
        let need = u32::from(self.config.words_min) * PLAIN_WEIGHT;
        weight >= if others == 1 { need * 8 / 5 } else { need }
    }

    /// Joins `group`, which differs in token `i` only, into its oldest member.
    fn join(&mut self, group: &[u32], i: usize) -> u32 {
        let oldest = group.iter().copied().min().unwrap_or(0);
        let prefix = self.common_prefix(group, i);
        let t = &mut self.templates[oldest as usize];
        self.by_sum.remove(&t.sum);
        t.sum = t.sum.wrapping_sub(mix(t.tokens[i].hash, i)).wrapping_add(mix(WILD_HASH, i));
        t.tokens[i] = Token { hash: WILD_HASH, kind: Kind::Wild };
        let mut form = Vec::with_capacity(t.form.len());
        let mut at = 0;
        for_each_token(&t.form, |text, _| {
            if at == i {
                form.extend_from_slice(&prefix);
                form.push(WILD);
            } else {
                form.extend_from_slice(text);
            }
            at += 1;
        });
        t.form = form.into();
        let (sum, n, was_refined) = (t.sum, t.tokens.len() as u32, t.refined);
        t.refined = true;
        if !was_refined {
            self.refined.entry(n).or_default().push(oldest);
        }
        for &m in group {
            if m != oldest {
                self.absorb(m, oldest);
            }
        }
        // Others that say the same with the parameter already masked.
        if let Some(&twin) = self.by_sum.get(&sum)
            && twin != oldest
        {
            let (into, from) = (oldest.min(twin), oldest.max(twin));
            self.absorb(from, into);
            self.by_sum.insert(sum, into);
            return into;
        }
        self.by_sum.insert(sum, oldest);
        oldest
    }

    /// What the names at place `i` of these forms have in common: whole parts, `com.example.`.
    fn common_prefix(&self, group: &[u32], i: usize) -> Vec<u8> {
        let mut common: Option<&[u8]> = None;
        for &m in group {
            let t = &self.templates[m as usize];
            let name = token_at(&t.form, i);
            let n = common.map_or(name.len(), |c| c.iter().zip(name).take_while(|(a, b)| a == b).count());
            common = Some(&name[..n]);
        }
        let common = common.unwrap_or_default();
        let n = common.iter().rposition(|b| *b == b'.').map_or(0, |dot| dot + 1);
        if common[..n].contains(&WILD) { Vec::new() } else { common[..n].to_vec() }
    }

    /// Drops the prefixes of `slot`'s parameters that `form` has not.
    fn generalise(&mut self, slot: u32, form: &[u8]) {
        let t = &mut self.templates[slot as usize];
        if !t.refined {
            return;
        }
        let mut given = Vec::new();
        for_each_token(form, |text, _| given.push(text));
        let mut out = Vec::with_capacity(t.form.len());
        let (mut i, mut changed) = (0, false);
        for_each_token(&t.form, |text, _| {
            let parameter = t.tokens.get(i).is_some_and(|t| t.kind == Kind::Wild) && text.len() > 1;
            // A parameter that was masked whole says nothing about its beginning.
            let agrees = |g: &&[u8]| **g == [WILD] || g.starts_with(&text[..text.len() - 1]);
            if parameter && !given.get(i).is_some_and(agrees) {
                out.push(WILD);
                changed = true;
            } else {
                out.extend_from_slice(text);
            }
            i += 1;
        });
        if changed {
            t.form = out.into();
        }
    }

    fn absorb(&mut self, from: u32, into: u32) {
        let t = &mut self.templates[from as usize];
        t.alive = false;
        t.root = into;
        let (count, last, sum, n, id) = (t.count, t.last, t.sum, t.tokens.len() as u32, t.id);
        if t.refined
            && let Some(list) = self.refined.get_mut(&n)
        {
            list.retain(|s| *s != from);
        }
        if self.by_sum.get(&sum) == Some(&from) {
            self.by_sum.remove(&sum);
        }
        let t = &mut self.templates[into as usize];
        t.count += count;
        t.last = t.last.max(last);
        self.joins.push((id, t.id));
        self.live -= 1;
        self.stats.joined += 1;
    }
}
/// What one word of its kind weighs; `words_min` plain words make a parameter (10 by default).
const PLAIN_WEIGHT: u32 = 2;
const DOTTED_WEIGHT: u32 = 3;
const NUMBERED_WEIGHT: u32 = 4;
const UNIT_WEIGHT: u32 = 8;
const WILD_WEIGHT: u32 = 6;

impl TemplateMiner {
    /// Text of a template, with `<*>` where parameters stand; `None` when it left.
    pub fn text(&self, id: TemplateId) -> Option<String> {
        let slot = self.root(*self.forms.get(&id)?);
        let t = &self.templates[slot as usize];
        let mut out = Vec::with_capacity(t.form.len() + 16);
        for b in &t.form {
            if *b == WILD {
                out.extend_from_slice(b"<*>");
            } else {
                out.push(*b);
            }
        }
        Some(String::from_utf8_lossy(&out).into_owned())
    }

    /// The template that `id` is part of now: itself, unless refinement joined it into another.
    pub fn resolve(&self, id: TemplateId) -> TemplateId {
        self.forms.get(&id).map_or(id, |slot| self.templates[self.root(*slot) as usize].id)
    }

    /// Lines of a template so far.
    pub fn count(&self, id: TemplateId) -> u64 {
        self.forms.get(&id).map_or(0, |slot| self.templates[self.root(*slot) as usize].count)
    }

    /// Live templates.
    pub const fn len(&self) -> usize {
        self.live
    }

    /// Whether nothing was learned.
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Counters.
    pub const fn stats(&self) -> MinerStats {
        self.stats
    }

    /// The joins since the last call: (the template that is gone, the one that it is part of), in order.
    pub fn take_joins(&mut self) -> Vec<(TemplateId, TemplateId)> {
        std::mem::take(&mut self.joins)
    }

    /// Makes room: the eighth of the templates that was not seen for longest leaves, if the miner is full, and all
    /// forms but the templates' own are forgotten. They are found again through the template that they belong to.
    fn evict(&mut self) {
        let mut live: Vec<(u64, u32)> =
            self.templates.iter().enumerate().filter(|(_, t)| t.alive).map(|(i, t)| (t.last, i as u32)).collect();
        if self.live >= self.config.templates_max.max(64) {
            live.sort_unstable();
            let gone = live.len() / 8;
            self.stats.evicted += gone as u64;
            live.drain(..gone);
            live.sort_unstable_by_key(|(_, slot)| *slot);
        }
        let mut old = std::mem::take(&mut self.templates);
        let kept = live.iter().map(|(_, slot)| {
            let empty = Template { tokens: Box::default(), form: Box::default(), ..old[*slot as usize] };
            std::mem::replace(&mut old[*slot as usize], empty)
        });
        let kept: Vec<_> = kept.collect();
        self.rebuild(kept);
    }

    /// Takes `kept` as the live templates, in this order, and builds every index anew.
    fn rebuild(&mut self, kept: Vec<Template>) {
        self.rebuilt += 1;
        self.forms = HashMap::default();
        self.by_sum = HashMap::default();
        self.slots = HashMap::default();
        self.refined = HashMap::new();
        self.live = kept.len();
        self.templates = kept;
        for slot in 0..self.templates.len() as u32 {
            let t = &mut self.templates[slot as usize];
            t.root = slot;
            t.alive = true;
            self.forms.insert(t.id, slot);
            self.by_sum.insert(t.sum, slot);
            if t.refined {
                self.refined.entry(t.tokens.len() as u32).or_default().push(slot);
            }
            for (i, token) in t.tokens.iter().enumerate().filter(|(_, t)| t.kind != Kind::Sep) {
                let members = self.slots.entry(t.sum.wrapping_sub(mix(token.hash, i))).or_default();
                if (members.n as usize) < SLOT {
                    members.members[members.n as usize] = slot;
                    members.n += 1;
                }
            }
        }
    }
}
