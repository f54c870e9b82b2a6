//! Doubly linked lists of elements of a slice, so that a member is removed in constant time. Circular, so that the head
//! is all there is to remember of one.

/// No element.
pub(super) const NONE: u32 = u32::MAX;

/// The neighbours of a member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    before: u32,
    after: u32,
}

impl Default for Links {
    fn default() -> Self {
        Self { before: NONE, after: NONE }
    }
}

/// What may be in lists, each with a number.
pub(super) trait Linked {
    fn links(&mut self, list: usize) -> &mut Links;
}

/// Adds a member at the end; the list's head from now on.
pub(super) fn push<T: Linked>(items: &mut [T], list: usize, head: u32, item: u32) -> u32 {
    if head == NONE {
        *links(items, list, item) = Links { before: item, after: item };
        return item;
    }
    let last = std::mem::replace(&mut links(items, list, head).before, item);
    links(items, list, last).after = item;
    *links(items, list, item) = Links { before: last, after: head };
    head
}

/// Takes a member out; the list's head from now on.
pub(super) fn remove<T: Linked>(items: &mut [T], list: usize, head: u32, item: u32) -> u32 {
    let Links { before, after } = *links(items, list, item);
    if after == item {
        return NONE;
    }
    links(items, list, before).after = after;
    links(items, list, after).before = before;
    if head == item { after } else { head }
}

/// The member after `item`; after the last one comes the first.
pub(super) fn next<T: Linked>(items: &mut [T], list: usize, item: u32) -> u32 {
    links(items, list, item).after
}

fn links<T: Linked>(items: &mut [T], list: usize, item: u32) -> &mut Links {
    items[item as usize].links(list)
}
