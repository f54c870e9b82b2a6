//! Follows a packet through a chain and those that the chain jumps to.

use super::matches::{matches, target};
use super::registers::{Certainty, Registers};
use super::{DropSource, Packet};
use crate::node::nftables::{BaseChain, ChainName, Chains, Expression, NftVerdict};
use std::collections::HashMap;

/// What a base chain does to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChainVerdict {
    Accepts,
    Drops(DropSource),
    /// The first that may.
    MayDrop(DropSource),
}

/// How deep the kernel lets chains jump (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;

/// What `chain` does to `packet`.
pub(crate) fn chain_verdict(chains: &Chains, chain: &BaseChain, packet: &Packet) -> ChainVerdict {
    let mut walk = ChainWalk { chains, packet, known: HashMap::new() };
    let mut outcomes = walk.follow(&chain.name, DEPTH);
    if outcomes.goes_on {
        if chain.base.drops {
            outcomes.drops(DropSource { chain: chain.name.clone(), rule: None });
        } else {
            outcomes.accepts = true;
        }
    }
    match outcomes {
        Outcomes { accepts: false, last_drop: Some(by), .. } => ChainVerdict::Drops(by),
        Outcomes { first_drop: Some(by), .. } => ChainVerdict::MayDrop(by),
        _ => ChainVerdict::Accepts,
    }
}

/// What may become of a packet in a chain.
#[derive(Debug, Clone, Default)]
struct Outcomes {
    accepts: bool,
    first_drop: Option<DropSource>,
    /// The surest one, since a packet that is sure to be dropped is so by the last that drops.
    last_drop: Option<DropSource>,
    /// It comes back to whoever jumped here, or to the policy.
    goes_on: bool,
}

impl Outcomes {
    fn drops(&mut self, by: DropSource) {
        self.first_drop.get_or_insert_with(|| by.clone());
        self.last_drop = Some(by);
    }

    /// All but going on.
    fn add(&mut self, other: &Self) {
        self.accepts |= other.accepts;
        self.first_drop = self.first_drop.take().or_else(|| other.first_drop.clone());
        self.last_drop = other.last_drop.clone().or_else(|| self.last_drop.take());
    }
}

struct ChainWalk<'a> {
    chains: &'a Chains,
    packet: &'a Packet,
    known: HashMap<ChainName, Outcomes>,
}

impl ChainWalk<'_> {
    fn follow(&mut self, chain: &ChainName, depth: usize) -> Outcomes {
        if let Some(known) = self.known.get(chain) {
            return known.clone();
        }
        let rules = self.chains.rules.get(chain).filter(|_| depth > 0);
        let Some(rules) = rules else {
            // It was not read, so it may do anything.
            let by = Some(DropSource { chain: chain.clone(), rule: None });
            return Outcomes { accepts: true, first_drop: by.clone(), last_drop: by, goes_on: true };
        };
        let mut outcomes = Outcomes::default();
        let mut reaches_the_end = true;
        for rule in rules {
            let decisions = self.decisions(chain, &rule.expressions);
            let mut may_pass = decisions.iter().all(|(holds, _)| *holds != Certainty::Yes);
            for (_, verdict) in &decisions {
                match verdict {
                    NftVerdict::Accept => outcomes.accepts = true,
                    NftVerdict::Drop => outcomes.drops(DropSource { chain: chain.clone(), rule: Some(rule.handle) }),
                    NftVerdict::Queue => {
                        outcomes.accepts = true;
                        outcomes.drops(DropSource { chain: chain.clone(), rule: Some(rule.handle) });
                    }
                    NftVerdict::Continue => may_pass = true,
                    NftVerdict::Return => outcomes.goes_on = true,
                    NftVerdict::Jump(name) => {
                        let inner = self.follow(&chain.beside(name), depth - 1);
                        outcomes.add(&inner);
                        may_pass |= inner.goes_on;
                    }
                    NftVerdict::Goto(name) => {
                        let inner = self.follow(&chain.beside(name), depth - 1);
                        outcomes.add(&inner);
                        outcomes.goes_on |= inner.goes_on;
                    }
                }
            }
            if !may_pass {
                reaches_the_end = false;
                break;
            }
        }
        outcomes.goes_on |= reaches_the_end;
        self.known.insert(chain.clone(), outcomes.clone());
        outcomes
    }

    /// What the rule decides on the packet, and how sure that is; nothing if it does not match or lets it pass.
    fn decisions(&self, chain: &ChainName, expressions: &[Expression]) -> Vec<(Certainty, NftVerdict)> {
        let packet = self.packet;
        let mut registers = Registers::new();
        let mut certainty = Certainty::Yes;
        for expression in expressions {
            let holds = match expression {
                Expression::LoadMeta { key, register } => {
                    registers.load_meta(*key, *register, packet);
                    Certainty::Yes
                }
                Expression::LoadPayload { base, offset, length, register } => {
                    registers.load_payload(*base, *offset, *length, *register, packet);
                    Certainty::Yes
                }
                Expression::LoadCt { key, register } => Certainty::of(registers.load_ct(*key, *register)),
                Expression::LoadFib { flags, result, register } => {
                    registers.load_fib(*flags, *result, *register, packet);
                    Certainty::Yes
                }
                Expression::LoadImmediate { value, register } => {
                    registers.write_known(*register, value);
                    Certainty::Yes
                }
                Expression::LoadUnknown { register } => {
                    registers.load_unknown(*register);
                    Certainty::Yes
                }
                Expression::Bitwise { source, register, mask, xor } => {
                    registers.bitwise(*source, *register, mask, xor);
                    Certainty::Yes
                }
                Expression::Compare { register, operator, value } => registers.compares(*register, *operator, value),
                Expression::Range { register, is_inverted, from, to } => {
                    registers.is_between(*register, from, to).inverted(*is_inverted)
                }
                Expression::Lookup { set, register, is_inverted, into } => {
                    match (self.chains.sets.get(&chain.beside(set)), into) {
                        (Some(elements), None) => {
                            let found = registers.elements(*register, elements);
                            found.iter().map(|(holds, _)| *holds).max().unwrap_or(Certainty::No).inverted(*is_inverted)
                        }
                        (Some(elements), Some(0)) => {
                            let found = registers.elements(*register, elements);
                            let decided = found
                                .into_iter()
                                .filter_map(|(holds, element)| Some((holds.min(certainty), element.verdict.clone()?)));
                            return decided.collect();
                        }
                        // A map of verdicts that was not read.
                        (None, Some(0)) => return may_do_anything(),
                        (_, Some(register)) => {
                            registers.load_unknown(*register);
                            Certainty::Maybe
                        }
                        (None, None) => Certainty::Maybe,
                    }
                }
                Expression::Match { name, revision, info } => matches(name, *revision, info, packet),
                Expression::Target { name } => match target(name) {
                    Some(true) => return vec![(certainty, NftVerdict::Drop)],
                    Some(false) => Certainty::Yes,
                    None => return may_do_anything(),
                },
                Expression::Decide(verdict) => return vec![(certainty, verdict.clone())],
                Expression::Pass => Certainty::Yes,
                Expression::May { .. } => {
                    // It may have loaded something.
                    registers = Registers::new();
                    Certainty::Maybe
                }
            };
            match certainty.min(holds) {
                Certainty::No => return Vec::new(),
                less => certainty = less,
            }
        }
        Vec::new()
    }
}

/// Accept, drop or let pass.
fn may_do_anything() -> Vec<(Certainty, NftVerdict)> {
    vec![(Certainty::Maybe, NftVerdict::Queue)]
}
