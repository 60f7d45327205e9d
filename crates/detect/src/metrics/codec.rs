//! The bytes of a snapshot: little endian, floats by their bits, lengths before what they measure.
//!
//! Written by hand because a restored detector must go on bit for bit, and because a million series are written often.

use nightshift_model::Direction;
use std::sync::Arc;

/// What can be written and read back.
pub(crate) trait Wire: Sized {
    fn put(&self, out: &mut Vec<u8>);
    /// `None` where the bytes do not hold one.
    fn take(from: &mut &[u8]) -> Option<Self>;
}

macro_rules! numbers {
    ($($t:ty),*) => {$(
        impl Wire for $t {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                let (head, tail) = from.split_first_chunk()?;
                *from = tail;
                Some(Self::from_le_bytes(*head))
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64, i64, f32, f64);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        match u8::take(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let n = u32::take(from)? as usize;
        let (head, tail) = from.split_at_checked(n)?;
        *from = tail;
        Some(std::str::from_utf8(head).ok()?.to_owned())
    }
}

impl Wire for Arc<str> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        String::take(from).map(Into::into)
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        for item in self {
            item.put(out);
        }
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        let n = u32::take(from)? as usize;
        // Every item has at least a byte: a length that lies cannot make us allocate more than the bytes that came.
        if n > from.len() {
            return None;
        }
        let mut items = Self::new();
        for _ in 0..n {
            items.push(T::take(from)?);
        }
        Some(items)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(item) = self {
            item.put(out);
        }
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(if bool::take(from)? { Some(T::take(from)?) } else { None })
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Some((A::take(from)?, B::take(from)?))
    }
}

impl Wire for Direction {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Up => 0,
            Self::Down => 1,
            Self::Flat => 2,
            Self::None => 3,
        });
    }
    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(match u8::take(from)? {
            0 => Self::Up,
            1 => Self::Down,
            2 => Self::Flat,
            3 => Self::None,
            _ => return None,
        })
    }
}

/// Implements [`Wire`] for a struct: its fields in this order.
macro_rules! wire_struct {
    ($name:ty { $($field:ident),* $(,)? }) => {
        impl $crate::metrics::codec::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::metrics::codec::Wire::put(&self.$field, out);)*
            }
            fn take(from: &mut &[u8]) -> Option<Self> {
                $(let $field = $crate::metrics::codec::Wire::take(from)?;)*
                Some(Self { $($field),* })
            }
        }
    };
}
pub(crate) use wire_struct;
