//! Programs that a map runs: of an array for tail calls, of maps of devices and processors. Whoever has
//! the map may take them out.

use std::io;

use libbpf_rs::{
    MapCore as _, MapFlags, MapHandle, MapType,
    query::{MapInfo, MapInfoIter},
};

use super::{Show, Spot};

/// Shows every place in a map that runs one of these programs.
pub fn each(programs: &[u32], show: &mut Show<'_>) {
    for info in MapInfoIter::default() {
        let (Some(kind), Ok(map)) = (Kind::of(&info), MapHandle::from_map_id(info.id)) else {
            continue;
        };
        for key in map.keys() {
            // Empty places of an array are no error.
            let Ok(Some(value)) = map.lookup(&key, MapFlags::ANY) else {
                continue;
            };
            let Some(program) = kind.program(&value).filter(|id| programs.contains(id)) else {
                continue;
            };
            let number = key.try_into().map_or(0, u32::from_ne_bytes);
            let spot = Spot {
                program,
                place: format!("map {} ({}) key {number}", info.id, kind.name()),
                names: Vec::new(),
            };
            show(spot, &|| {
                let result = match kind.without_program(&value) {
                    Some(value) => map.update(&number.to_ne_bytes(), &value, MapFlags::ANY),
                    None => map.delete(&number.to_ne_bytes()),
                };
                result.map_err(io::Error::other)
            });
        }
    }
}

/// Kinds of maps that run programs. Keys are one word; a looked-up value shows the program's id where
/// an update has its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `BPF_MAP_TYPE_PROG_ARRAY`
    Calls,
    /// Maps of devices: `struct bpf_devmap_val`
    Devices,
    /// Maps of processors: `struct bpf_cpumap_val`
    Processors,
}

impl Kind {
    fn of(info: &MapInfo) -> Option<Self> {
        let kind = match info.ty {
            MapType::ProgArray => Self::Calls,
            MapType::Devmap | MapType::DevmapHash => Self::Devices,
            MapType::Cpumap => Self::Processors,
            _ => return None,
        };
        // Before programs could be in it, the value was one word.
        (info.value_size as usize > kind.at()).then_some(kind)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Calls => "tail calls",
            Self::Devices => "devices",
            Self::Processors => "processors",
        }
    }

    /// Where in the value the program is.
    fn at(self) -> usize {
        match self {
            Self::Calls => 0,
            Self::Devices | Self::Processors => 4,
        }
    }

    fn program(self, value: &[u8]) -> Option<u32> {
        let word = value.get(self.at()..self.at() + 4)?;
        word.try_into().ok().map(u32::from_ne_bytes)
    }

    /// The device or processor goes on without it; a call has nothing else.
    fn without_program(self, value: &[u8]) -> Option<Vec<u8>> {
        if self == Self::Calls {
            return None;
        }
        let mut value = value.to_vec();
        value.get_mut(self.at()..self.at() + 4)?.fill(0);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_goes_on_without_its_program_and_a_call_goes() {
        let value = [7, 0, 0, 0, 42, 0, 0, 0];
        assert_eq!(Kind::Devices.program(&value), Some(42));
        assert_eq!(
            Kind::Devices.without_program(&value),
            Some(vec![7, 0, 0, 0, 0, 0, 0, 0])
        );
        assert_eq!(Kind::Calls.program(&value[4..]), Some(42));
        assert_eq!(Kind::Calls.without_program(&value[4..]), None);
        assert_eq!(Kind::Processors.program(&value[..4]), None);
    }
}
