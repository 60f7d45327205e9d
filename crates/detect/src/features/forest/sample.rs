//! A sample of an entity's minutes, and how easily a further one is isolated from it.
//!
//! The trees of an isolation forest are never built. A tree is a seed and a choice of places in the sample; a row walks
//! it by splitting the minutes that are with it, again and again, until it is alone. A walk looks at about twice the
//! minutes of the tree, so a row costs a constant, the model is as new as the sample, nothing is retrained and nothing
//! but the sample is kept.
//!
//! Source: F. T. Liu, K. M. Ting, Z.-H. Zhou, "Isolation Forest", ICDM 2008. Half of the splits are oblique, in two
//! features at a time (S. Hariri, M. Carrasco Kind, R. Brunner, "Extended Isolation Forest", TKDE 33, 2021): what is odd
//! only jointly lies in a corner that no straight cut finds soon.

use crate::metrics::wire_struct;

/// Features of a row.
pub(super) const WIDTH: usize = 7;
/// Minutes kept of an entity.
pub(super) const KEPT: usize = 256;
/// Minutes of a tree.
const PER_TREE: usize = 128;
/// Trees of a forest.
const TREES: u64 = 64;
/// Depth at which a walk ends: what is not alone by then is ordinary.
const DEPTH_MAX: u32 = 10;
/// Attempts to find a split that parts the minutes.
const ATTEMPTS: u32 = 4;
/// Share of the kept minutes that must tell a feature, for it to be a column of the model.
const TOLD_MIN: f64 = 0.9;

/// The features of a minute as the forest sees them; NaN where absent.
pub(super) type Row = [f32; WIDTH];

/// Minutes of the past, each as likely to be here as its age allows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sample {
    pub(super) rows: Vec<Row>,
    /// Minutes that were offered.
    pub(super) seen: u64,
}

wire_struct!(Sample { rows, seen });

/// Small and good enough to choose splits: SplitMix64 (G. Steele, D. Lea, C. Flood, OOPSLA 2014).
#[derive(Debug, Clone, Copy)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0..1.
    pub(super) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// 0..n.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

/// Mean length of an unsuccessful search in a binary tree of `n` (Liu et al. 2008, eq. 1).
fn usual_path(n: f64) -> f64 {
    const EULER: f64 = 0.577_215_664_901_532_9;
    if n <= 1.0 {
        0.0
    } else if n < 3.0 {
        1.0
    } else {
        2.0 * ((n - 1.0).ln() + EULER) - 2.0 * (n - 1.0) / n
    }
}

impl Sample {
    /// Learns a minute: all at first, then each by the odds that keep the sample even over `window` minutes, and in
    /// the place of any (C. Aggarwal, "On biased reservoir sampling", VLDB 2006): ages fall off exponentially.
    pub(super) fn learn(&mut self, row: Row, window: u32, hurry: bool, seed: u64) {
        self.seen = self.seen.saturating_add(1);
        if self.rows.len() < KEPT {
            self.rows.push(row);
            return;
        }
        let mut dice = Dice(seed ^ self.seen.wrapping_mul(0xd6e8_feb8_6659_fd93));
        let of = (self.seen.min(u64::from(window))).max(KEPT as u64) as usize;
        if hurry || dice.below(of) < KEPT {
            let place = dice.below(KEPT);
            self.rows[place] = row;
        }
    }

    /// Features that nearly every minute tells, a bit each.
    pub(super) fn columns(&self) -> u8 {
        let need = (self.rows.len() as f64 * TOLD_MIN).ceil() as usize;
        (0..WIDTH)
            .filter(|f| self.rows.iter().filter(|r| r[*f].is_finite()).count() >= need.max(1))
            .fold(0, |m, f| m | 1 << f)
    }
}

/// What walks need beside the sample: kept between rows, so that none of them asks for memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Scratch {
    /// Minutes that tell every column.
    whole: Vec<u16>,
    /// Those of the tree at hand.
    tree: Vec<u16>,
}

/// One forest: a sample, the columns in use, a seed.
pub(super) struct Forest<'a> {
    pub(super) sample: &'a Sample,
    pub(super) columns: u8,
    pub(super) seed: u64,
}

impl Forest<'_> {
    /// How odd a row is, 0..1: 0.5 is ordinary, nearer 1 is alone (Liu et al. 2008, eq. 2). Features that the row does
    /// not tell decide nothing: the walk takes both ways, by how many went each. `None`: too few minutes or columns.
    pub(super) fn score(&self, row: &Row, scratch: &mut Scratch) -> Option<f64> {
        let columns: Vec<u8> = (0..WIDTH as u8).filter(|f| self.columns & (1 << f) != 0).collect();
        scratch.whole.clear();
        let whole = |r: &Row| columns.iter().all(|f| r[usize::from(*f)].is_finite());
        scratch.whole.extend(self.sample.rows.iter().enumerate().filter(|(_, r)| whole(r)).map(|(i, _)| i as u16));
        let size = PER_TREE.min(scratch.whole.len());
        if columns.len() < 2 || size < 32 || columns.iter().all(|f| row[usize::from(*f)].is_nan()) {
            return None;
        }
        let mut sum = 0.0;
        for tree in 0..TREES {
            let seed = self.seed ^ tree.wrapping_mul(0xa076_1d64_78bd_642f);
            let mut dice = Dice(seed);
            scratch.tree.clear();
            scratch.tree.extend_from_slice(&scratch.whole);
            // The first places of a shuffle (Fisher and Yates).
            let n = scratch.tree.len();
            for i in 0..size {
                let j = i + dice.below(n - i);
                scratch.tree.swap(i, j);
            }
            scratch.tree.truncate(size);
            sum += self.walk(row, &columns, &mut scratch.tree, 0, dice.next());
        }
        let mean = sum / TREES as f64;
        Some((-mean / usual_path(size as f64)).exp2())
    }

    /// Length of the row's path from a node that holds `with`. Each node's split follows from its own seed.
    fn walk(&self, row: &Row, columns: &[u8], with: &mut [u16], depth: u32, node: u64) -> f64 {
        let n = with.len();
        if n <= 1 || depth >= DEPTH_MAX {
            return f64::from(depth) + usual_path(n as f64);
        }
        let rows = &self.sample.rows;
        let mut dice = Dice(node);
        let at = |i: u16, f: usize| rows[usize::from(i)][f];
        for _ in 0..ATTEMPTS {
            let a = usize::from(columns[dice.below(columns.len())]);
            let b = usize::from(columns[dice.below(columns.len())]);
            let oblique = dice.next() & 1 == 1 && a != b;
            let angle = dice.unit() * std::f32::consts::TAU;
            let share = dice.unit();
            let ends = |f: usize| {
                with.iter()
                    .fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), i| (lo.min(at(*i, f)), hi.max(at(*i, f))))
            };
            let (lo_a, hi_a) = ends(a);
            if hi_a <= lo_a {
                continue;
            }
            // Weights of the two features: in units of their ranges here, so that neither drowns the other.
            let (w_a, w_b) = if oblique {
                let (lo_b, hi_b) = ends(b);
                if hi_b <= lo_b { (1.0, 0.0) } else { (angle.cos() / (hi_a - lo_a), angle.sin() / (hi_b - lo_b)) }
            } else {
                (1.0, 0.0)
            };
            let place = |x: &Row| if w_b == 0.0 { w_a * x[a] } else { w_a * x[a] + w_b * x[b] };
            let (mut lo, mut hi) = (f32::INFINITY, f32::NEG_INFINITY);
            for i in with.iter() {
                let p = place(&rows[usize::from(*i)]);
                (lo, hi) = (lo.min(p), hi.max(p));
            }
            let cut = lo + share * (hi - lo);
            let mut left = 0;
            for i in 0..n {
                if place(&rows[usize::from(with[i])]) < cut {
                    with.swap(left, i);
                    left += 1;
                }
            }
            if left == 0 || left == n {
                continue;
            }
            let (mut child_left, mut child_right) = (Dice(node ^ 0x5851_f42d), Dice(node ^ 0x1405_7b7e));
            let (child_left, child_right) = (child_left.next(), child_right.next());
            let (less, more) = with.split_at_mut(left);
            let here = place(row);
            return if here.is_nan() {
                let share = left as f64 / n as f64;
                share * self.walk(row, columns, less, depth + 1, child_left)
                    + (1.0 - share) * self.walk(row, columns, more, depth + 1, child_right)
            } else if here < cut {
                self.walk(row, columns, less, depth + 1, child_left)
            } else {
                self.walk(row, columns, more, depth + 1, child_right)
            };
        }
        // All alike, as far as anybody can see.
        f64::from(depth) + usual_path(n as f64)
    }
}
