//! The names of the functions at addresses of this process, from its own program file.

use super::message::{Mapping, ProfileBuilder};
use backtrace::{clear_symbol_cache, resolve};
use procfs::process::{MMPermissions, MMapPath, Process};
use std::collections::HashMap;
use std::ffi::c_void;

/// Where the code of this process lies, and what is already known of it in one profile.
pub(super) struct Symbols {
    mappings: Vec<Mapping>,
    locations: HashMap<usize, u64>,
}

impl Symbols {
    /// For one profile. What /proc refuses to tell is not in it.
    pub(super) fn new(builder: &mut ProfileBuilder) -> Self {
        let maps = Process::myself().and_then(|process| process.maps()).map(|maps| maps.0).unwrap_or_default();
        let code = maps.into_iter().filter(|map| map.perms.contains(MMPermissions::EXECUTE));
        let mut mappings = Vec::new();
        for map in code {
            let path = match map.pathname {
                MMapPath::Path(path) => path.to_string_lossy().into_owned(),
                MMapPath::Vdso => "[vdso]".to_owned(),
                _ => continue,
            };
            let (memory_start, memory_limit) = map.address;
            mappings.push(Mapping {
                id: mappings.len() as u64 + 1,
                memory_start,
                memory_limit,
                file_offset: map.offset,
                filename: builder.text(&path),
                has_functions: true,
            });
        }
        builder.profile.mapping.clone_from(&mappings);
        Self { mappings, locations: HashMap::new() }
    }

    /// The number of the place that a return address comes from.
    pub(super) fn location(&mut self, builder: &mut ProfileBuilder, return_address: usize) -> u64 {
        if let Some(known) = self.locations.get(&return_address) {
            return *known;
        }
        let address = return_address.saturating_sub(1) as u64;
        let is_in = |mapping: &&Mapping| (mapping.memory_start..mapping.memory_limit).contains(&address);
        let mapping = self.mappings.iter().find(is_in);
        let mut lines = Vec::new();
        // It goes back to the instruction before by itself.
        resolve(return_address as *mut c_void, |symbol| {
            // Without the hash that makes it unique.
            let name = symbol.name().map(|name| format!("{name:#}")).unwrap_or_default();
            let file = symbol.filename().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
            if !name.is_empty() {
                lines.push(builder.line(&name, &file, symbol.lineno().unwrap_or_default()));
            }
        });
        if lines.is_empty() {
            // Of a file that this process may not open, or one without names.
            let name = mapping
                .map_or_else(|| format!("{address:#x}"), |mapping| unknown_in(builder.text_at(mapping.filename)));
            lines.push(builder.line(&name, "", 0));
        }
        let location = builder.location(address, mapping.map_or(0, |mapping| mapping.id), lines);
        self.locations.insert(return_address, location);
        location
    }
}

/// What stands for all that has no name in a file.
fn unknown_in(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    format!("[{}]", file.trim_matches(['[', ']']))
}

impl Drop for Symbols {
    /// The program's file was mapped, and tables were made of it.
    fn drop(&mut self) {
        clear_symbol_cache();
    }
}
