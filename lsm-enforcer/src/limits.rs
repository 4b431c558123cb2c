//! What a loader may choose, written into an image.

use bundle::image::{Identity, Image};

use crate::workshop::Limits;

/// `BPF_PROG_TYPE_XDP`.
const XDP: u32 = 6;
/// `BPF_PROG_TYPE_EXT`.
pub const EXT: u32 = 28;

impl Limits {
    /// Opens the image's maps as far as the rule does, and closes what else was open:
    /// measuring knows what the publisher declared, the rule decides.
    pub fn apply(&self, image: &mut Image) {
        let places = match image.identity.prog_type {
            EXT => &self.replaces,
            _ => &self.places,
        };
        image.places = places.get(&image.name).cloned().unwrap_or_default();
        for map in &mut image.maps {
            if let Some(&sizes) = self.map_sizes.get(&map.name) {
                map.max_entries = sizes;
            }
            let Some(contents) = &mut map.contents else {
                continue;
            };
            contents.tunables = self
                .tunables
                .iter()
                .find(|(section, _)| holds(&map.name, section))
                .map(|(_, tunables)| tunables.clone())
                .unwrap_or_default();
        }
    }

    /// The same instructions as libxdp loads them where its dispatcher is in use: XDP programs
    /// as replacements of the dispatcher's functions, if the rule allows it.
    pub fn as_replacement(&self, image: &Image) -> Option<Image> {
        if image.identity.prog_type != XDP {
            return None;
        }
        Some(Image {
            identity: Identity {
                prog_type: EXT,
                expected_attach_type: 0,
                ..image.identity
            },
            places: self.replaces.get(&image.name)?.clone(),
            ..image.clone()
        })
    }
}

/// Is this the data section's map? libbpf puts the start of the object's name before the
/// section's and cuts off after 15 characters (`internal_map_name`).
fn holds(map: &str, section: &str) -> bool {
    map.ends_with(section) || (map.len() == 15 && section.starts_with(map))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bundle::image::{Allowed, TunableRange};

    use super::*;
    use crate::fake;

    #[test]
    fn only_what_the_rule_names_is_opened() {
        let pid = TunableRange {
            name: "pid".to_owned(),
            offset: 4,
            size: 4,
            signed: true,
            allowed: Allowed::Range(0, 9),
        };
        let limits = Limits {
            tunables: BTreeMap::from([(".rodata".to_owned(), vec![pid.clone()])]),
            map_sizes: BTreeMap::from([("events".to_owned(), (1, 64))]),
            places: BTreeMap::from([("x".to_owned(), vec!["do_*".to_owned()])]),
            replaces: BTreeMap::new(),
        };
        let mut image = fake::image("x");
        let debug = TunableRange {
            name: "debug".to_owned(),
            allowed: Allowed::Any,
            offset: 0,
            ..pid.clone()
        };
        for contents in image
            .maps
            .iter_mut()
            .filter_map(|map| map.contents.as_mut())
        {
            contents.tunables = vec![debug.clone(), pid.clone()];
        }
        limits.apply(&mut image);
        assert_eq!(image.places, ["do_*"]);
        let opened: Vec<_> = image
            .maps
            .iter()
            .map(|map| {
                let tunables = map.contents.as_ref().map(|c| c.tunables.clone());
                (map.name.as_str(), map.max_entries, tunables)
            })
            .collect();
        assert_eq!(
            opened,
            [
                ("opensnoo.rodata", (1, 1), Some(vec![pid])),
                ("events", (1, 64), None),
                ("start", (10, 10), None),
            ]
        );
    }

    #[test]
    fn an_xdp_program_becomes_a_replacement_only_where_the_rule_names_one() {
        let mut limits = Limits::default();
        let mut image = fake::image("x");
        image.identity.prog_type = XDP;
        image.identity.expected_attach_type = 37;
        assert_eq!(limits.as_replacement(&image), None);
        let names = vec!["xdp_dispatcher:prog*".to_owned()];
        limits.replaces.insert("x".to_owned(), names.clone());
        let replacement = limits.as_replacement(&image).unwrap();
        let want = Image {
            identity: Identity {
                prog_type: EXT,
                expected_attach_type: 0,
                ..image.identity
            },
            places: names,
            ..image.clone()
        };
        assert_eq!(replacement, want);
        assert_eq!(limits.as_replacement(&want), None);
    }

    #[test]
    fn a_section_is_known_under_libbpfs_name_for_it() {
        assert!(holds("opensnoo.rodata", ".rodata"));
        assert!(holds(".rodata.str1.1", ".rodata.str1.1"));
        assert!(holds(".rodata.very_lo", ".rodata.very_long_name"));
        assert!(!holds("opensnoo.rodata", ".rodata.str1.1"));
        assert!(!holds("opensnoop.data", ".rodata"));
    }
}
