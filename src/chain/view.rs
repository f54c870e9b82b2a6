//! What makes a server block take some of its zones' queries only, and what its directives say of a query to each
//! other.

use super::Peer;
use crate::message::{LowerName, Name, Query};
use std::sync::Arc;

/// The view of a server block (`view`): several blocks may have the same zone, and the first whose view takes the
/// query has it.
#[derive(Clone)]
pub struct View {
    /// For metrics and metadata.
    pub name: Arc<str>,
    /// The text of what makes it take a query.
    pub rules: String,
    pub filter: Arc<dyn QueryFilter>,
}

/// Says which queries a server block takes.
pub trait QueryFilter: Send + Sync {
    /// True if the block takes this query, which was read from `wire`. Must not block.
    fn takes(&self, query: &Query, wire: &[u8], peer: &Peer) -> bool;

    /// True if what it says depends on more than the query's octets after the ID, the listen address, the transport and
    /// the address family of the client. Then no reply that was chosen by it goes into the packet cache.
    fn depends_on_client(&self) -> bool;
}

/// The labels that are known of a query before it is answered, from what the block is, for those that read them, such
/// as `log`: none unless the block has `metadata`. What directives say as they answer is in [`super::Metadata`].
#[derive(Clone, Debug, Default)]
pub struct BlockMetadata {
    /// Names below these have labels.
    zones: Arc<[Name]>,
    view: Option<Arc<str>>,
}

impl BlockMetadata {
    /// For a block whose `metadata` has these zones, and that has a view of this name.
    pub fn new(zones: &[Name], view: Option<Arc<str>>) -> Self {
        Self { zones: zones.into(), view }
    }

    /// The value of a label, such as `view/name`, for a query; `None` if nobody has set it.
    pub fn get(&self, label: &str, name: &LowerName) -> Option<&str> {
        let view = self.view.as_deref().filter(|_| label == "view/name")?;
        self.zones.iter().any(|zone| name.is_within(zone.as_wire())).then_some(view)
    }
}

#[cfg(test)]
mod tests {
    use super::BlockMetadata;
    use crate::message::Name;

    #[test]
    fn a_label_is_set_for_names_below_the_zones_of_metadata_alone() {
        let name = |text: &str| Name::parse(text).unwrap();
        let metadata = BlockMetadata::new(&[name("example.")], Some("inner".into()));
        assert_eq!(metadata.get("view/name", &name("A.Example.").to_lower()), Some("inner"));
        assert_eq!(metadata.get("view/name", &name("a.test.").to_lower()), None);
        assert_eq!(metadata.get("other/name", &name("a.example.").to_lower()), None);
        assert_eq!(BlockMetadata::new(&[], Some("inner".into())).get("view/name", &Name::root().to_lower()), None);
        assert_eq!(BlockMetadata::default().get("view/name", &Name::root().to_lower()), None);
    }
}
