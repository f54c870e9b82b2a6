//! The expressions of a rule, as far as it takes to know what becomes of a DNS packet. Pure.

use netlink_bindings::nftables::{
    ExprOps, IterableDataAttrs, IterableExprListAttrs, IterableVerdictAttrs, VerdictCode,
};
use rtnetlink::packet_core::NlaBuffer;
use std::ffi::CStr;

/// `NFTA_LOOKUP_SREG`, `NFTA_LOOKUP_DREG`, `NFTA_LOOKUP_FLAGS`: `netlink-bindings` has other numbers for these.
const LOOKUP_SOURCE: u16 = 2;
const LOOKUP_REGISTER: u16 = 3;
const LOOKUP_FLAGS: u16 = 5;
/// `NFT_LOOKUP_F_INV` (include/uapi/linux/netfilter/nf_tables.h, as all numbers here).
const LOOKUP_INVERTED: u32 = 1;
/// `NF_QUEUE`, in the lower half of a verdict.
const QUEUE: u32 = 3;

/// What one expression does. Registers are in the kernel's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    LoadMeta {
        key: u32,
        register: u32,
    },
    LoadPayload {
        base: u32,
        offset: u32,
        length: u32,
        register: u32,
    },
    LoadCt {
        key: u32,
        register: u32,
    },
    LoadFib {
        flags: u32,
        result: u32,
        register: u32,
    },
    LoadImmediate {
        value: Vec<u8>,
        register: u32,
    },
    /// The source becomes `(it & mask) ^ xor`.
    Bitwise {
        source: u32,
        register: u32,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// Goes on if the comparison holds.
    Compare {
        register: u32,
        operator: u32,
        value: Vec<u8>,
    },
    /// Goes on if the value is between both, or, if `is_inverted`, if it is not.
    Range {
        register: u32,
        is_inverted: bool,
        from: Vec<u8>,
        to: Vec<u8>,
    },
    /// Goes on if the set holds the value; a map loads what belongs to it, or decides on the packet.
    Lookup {
        set: String,
        register: u32,
        is_inverted: bool,
        into: Option<u32>,
    },
    /// A match of iptables.
    Match {
        name: String,
        revision: u32,
        info: Vec<u8>,
    },
    /// A target of iptables.
    Target {
        name: String,
    },
    Decide(NftVerdict),
    /// Counts, writes to the log, marks: the packet goes on as it came, as far as firewalls go.
    Pass,
    /// May match or not, and nothing else; with its name.
    May {
        name: String,
    },
    /// Loads what is not known here into a register.
    LoadUnknown {
        register: u32,
    },
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NftVerdict {
    Accept,
    Drop,
    /// To a program, which decides.
    Queue,
    Continue,
    Return,
    Jump(String),
    Goto(String),
}

/// The expressions in `list`.
pub(super) fn decode(list: &IterableExprListAttrs<'_>) -> Vec<Expression> {
    let mut expressions = Vec::new();
    for element in list.get_elem() {
        let name = element.get_name().unwrap_or_default();
        expressions.push(match element.get_data().ok() {
            Some(data) => operation(text(name), &data).unwrap_or_else(|| may(name)),
            None => match name.to_bytes() {
                b"notrack" | b"dup" => Expression::Pass,
                b"queue" => Expression::Decide(NftVerdict::Queue),
                _ => may(name),
            },
        });
    }
    expressions
}

/// None for what is not whole.
fn operation(name: String, data: &ExprOps<'_>) -> Option<Expression> {
    Some(match data {
        ExprOps::Meta(meta) => match (meta.get_dreg(), meta.get_key()) {
            (Ok(register), Ok(key)) => Expression::LoadMeta { key, register },
            _ => Expression::Pass,
        },
        ExprOps::Payload(payload) => match payload.get_dreg() {
            Ok(register) => Expression::LoadPayload {
                base: payload.get_base().ok()?,
                offset: payload.get_offset().ok()?,
                length: payload.get_len().ok()?,
                register,
            },
            Err(_) => Expression::Pass,
        },
        ExprOps::Ct(ct) => match (ct.get_dreg(), ct.get_key()) {
            (Ok(register), Ok(key)) => Expression::LoadCt { key, register },
            _ => Expression::Pass,
        },
        ExprOps::Fib(fib) => Expression::LoadFib {
            flags: fib.get_flags().ok()?,
            result: fib.get_result().ok()?,
            register: fib.get_dreg().ok()?,
        },
        ExprOps::Numgen(number) => Expression::LoadUnknown { register: number.get_dreg().ok()? },
        ExprOps::Immediate(immediate) => {
            let data = immediate.get_data().ok()?;
            match data.get_verdict() {
                Ok(verdict) => Expression::Decide(decode_verdict(&verdict)?),
                Err(_) => Expression::LoadImmediate { value: value(&data)?, register: immediate.get_dreg().ok()? },
            }
        }
        ExprOps::Bitwise(bitwise) => {
            let (source, register) = (bitwise.get_sreg().ok()?, bitwise.get_dreg().ok()?);
            match (bitwise.get_op().unwrap_or_default(), bitwise.get_mask(), bitwise.get_xor()) {
                (0, Ok(mask), Ok(xor)) => {
                    Expression::Bitwise { source, register, mask: value(&mask)?, xor: value(&xor)? }
                }
                _ => Expression::LoadUnknown { register },
            }
        }
        ExprOps::Cmp(comparison) => Expression::Compare {
            register: comparison.get_sreg().ok()?,
            operator: comparison.get_op().ok()?,
            value: value(&comparison.get_data().ok()?)?,
        },
        ExprOps::Range(range) => Expression::Range {
            register: range.get_sreg().ok()?,
            is_inverted: range.get_op().ok()? != 0,
            from: value(&range.get_from_data().ok()?)?,
            to: value(&range.get_to_data().ok()?)?,
        },
        ExprOps::Lookup(lookup) => {
            let number = |kind| {
                attribute(lookup.get_buf(), kind).and_then(|value| Some(u32::from_be_bytes(value.try_into().ok()?)))
            };
            Expression::Lookup {
                set: text(lookup.get_set().ok()?),
                register: number(LOOKUP_SOURCE)?,
                is_inverted: number(LOOKUP_FLAGS).unwrap_or_default() & LOOKUP_INVERTED != 0,
                into: number(LOOKUP_REGISTER),
            }
        }
        ExprOps::Match(found) => Expression::Match {
            name: text(found.get_name().ok()?),
            revision: found.get_rev().unwrap_or_default(),
            info: found.get_info().unwrap_or_default().to_vec(),
        },
        ExprOps::Target(target) => Expression::Target { name: text(target.get_name().ok()?) },
        ExprOps::Reject(_) => Expression::Decide(NftVerdict::Drop),
        ExprOps::Counter(_) | ExprOps::Log(_) => Expression::Pass,
        _ => Expression::May { name },
    })
}

/// A verdict, as a rule or an element of a map has it.
pub(super) fn decode_verdict(verdict: &IterableVerdictAttrs<'_>) -> Option<NftVerdict> {
    let chain = || verdict.get_chain().ok().map(text);
    Some(match verdict.get_code().ok()? {
        code if code == VerdictCode::Accept as u32 => NftVerdict::Accept,
        code if code == VerdictCode::Drop as u32 => NftVerdict::Drop,
        code if code == VerdictCode::Jump as u32 => NftVerdict::Jump(chain()?),
        code if code == VerdictCode::Goto as u32 => NftVerdict::Goto(chain()?),
        code if code == VerdictCode::Return as u32 => NftVerdict::Return,
        code if code & 0xffff == QUEUE => NftVerdict::Queue,
        _ => NftVerdict::Continue,
    })
}

/// The octets of a datum.
pub(super) fn value(data: &IterableDataAttrs<'_>) -> Option<Vec<u8>> {
    data.get_value().ok().map(<[u8]>::to_vec)
}

/// The value of an attribute that `netlink-bindings` cannot find.
pub(super) fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    loop {
        let found = NlaBuffer::new_checked(rest).ok()?;
        let end = usize::from(found.length());
        if found.kind() == kind {
            // `NLA_HEADER_SIZE`
            return rest.get(4..end);
        }
        rest = rest.get(end.next_multiple_of(4)..)?;
    }
}

/// A name of the kernel's.
pub(super) fn text(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}

fn may(name: &CStr) -> Expression {
    Expression::May { name: text(name) }
}
