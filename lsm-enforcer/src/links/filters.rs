//! Classifiers of tc that run a BPF program (`cls_bpf`): found in what rtnetlink tells of each
//! queueing discipline and class of this thread's network namespace, and deleted one by one.
#![expect(unsafe_code, reason = "a socket of rtnetlink")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use super::{Show, Spot};

/// Shows the classifiers that run these programs; taken off they are deleted.
pub fn each(programs: &[u32], interfaces: &[(String, i32)], show: &mut Show<'_>) {
    let names: BTreeMap<u32, String> = interfaces
        .iter()
        .map(|(name, index)| (*index as u32, name.clone()))
        .collect();
    let Ok(route) = Route::open() else {
        return;
    };
    // Devices that share a block all show its classifiers.
    let found: BTreeSet<Filter> = route
        .hooks(names.keys().copied())
        .into_iter()
        .flat_map(|hook| route.filters(hook))
        .filter(|filter| programs.contains(&filter.program))
        .collect();
    for filter in found {
        let spot = Spot {
            program: filter.program,
            place: filter.place(&names),
            names: names
                .get(&filter.header.index)
                .cloned()
                .into_iter()
                .collect(),
        };
        show(spot, &|| route.delete(&filter));
    }
}

/// `struct tcmsg`, whatever it is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Header {
    index: u32,
    handle: u32,
    parent: u32,
    info: u32,
}

/// A classifier of tc.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Filter {
    header: Header,
    chain: u32,
    program: u32,
}

impl Header {
    fn read(body: &[u8]) -> Option<Self> {
        Some(Self {
            index: word(body.get(4..)?)?,
            handle: word(body.get(8..)?)?,
            parent: word(body.get(12..)?)?,
            info: word(body.get(16..)?)?,
        })
    }

    fn bytes(self) -> Vec<u8> {
        let words = [0, self.index, self.handle, self.parent, self.info];
        words.into_iter().flat_map(u32::to_ne_bytes).collect()
    }
}

impl Filter {
    /// `None`: another kind, or the head of a list.
    fn read(body: &[u8]) -> Option<Self> {
        let all = attributes(body.get(HEADER..)?);
        let options = all.iter().find(|(kind, _)| *kind == TCA_OPTIONS)?;
        if kind_of(&all) != Some("bpf") {
            return None;
        }
        let program = attributes(options.1)
            .into_iter()
            .find(|(kind, _)| *kind == TCA_BPF_ID)
            .and_then(|(_, value)| word(value))?;
        let chain = all.iter().find(|(kind, _)| *kind == TCA_CHAIN);
        Some(Self {
            header: Header::read(body)?,
            chain: chain.and_then(|(_, value)| word(value)).unwrap_or(0),
            program,
        })
    }

    fn place(&self, names: &BTreeMap<u32, String>) -> String {
        let Header {
            index,
            handle,
            parent,
            info,
        } = self.header;
        let device = match (index, names.get(&index)) {
            (SHARED_BLOCK, _) => format!("block {parent}"),
            (_, Some(name)) => format!("interface {name}"),
            (_, None) => format!("interface {index}"),
        };
        let hook = match parent {
            _ if index == SHARED_BLOCK => String::new(),
            CLSACT_INGRESS | INGRESS => " ingress".to_owned(),
            CLSACT_EGRESS => " egress".to_owned(),
            _ => format!(" {:x}:{:x}", parent >> 16, parent & 0xffff),
        };
        let chain = match self.chain {
            0 => String::new(),
            chain => format!(" chain {chain}"),
        };
        format!(
            "{device} (tc{hook}{chain} pref {} handle {handle:#x})",
            info >> 16
        )
    }
}

/// A socket of rtnetlink.
struct Route(OwnedFd);

impl Route {
    fn open() -> io::Result<Self> {
        // SAFETY: the call takes numbers and returns a new descriptor or an error.
        let fd = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                libc::NETLINK_ROUTE,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was made by the lines above and is nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Where classifiers can be: what a request for them must name.
    fn hooks(&self, devices: impl Iterator<Item = u32>) -> Vec<Header> {
        let mut hooks = Vec::new();
        for body in self.dump(RTM_GETQDISC, Header::default()) {
            let Some(header) = Header::read(&body) else {
                continue;
            };
            let kind = attributes(&body[HEADER..]);
            let parents = match kind_of(&kind) {
                Some("clsact") => vec![CLSACT_INGRESS, CLSACT_EGRESS],
                _ => vec![header.handle],
            };
            hooks.extend(parents.into_iter().map(|parent| at(header.index, parent)));
        }
        for index in devices {
            let classes = self.dump(RTM_GETTCLASS, at(index, 0));
            let classes = classes.iter().filter_map(|body| Header::read(body));
            hooks.extend(classes.map(|class| at(index, class.handle)));
        }
        hooks.retain(|hook| hook.parent != 0);
        hooks
    }

    fn filters(&self, hook: Header) -> Vec<Filter> {
        let bodies = self.dump(RTM_GETTFILTER, hook);
        bodies
            .iter()
            .filter_map(|body| Filter::read(body))
            .collect()
    }

    fn delete(&self, filter: &Filter) -> io::Result<()> {
        let mut body = filter.header.bytes();
        body.extend(attribute(TCA_KIND, b"bpf\0"));
        if filter.chain != 0 {
            body.extend(attribute(TCA_CHAIN, &filter.chain.to_ne_bytes()));
        }
        self.send(RTM_DELTFILTER, NLM_F_ACK, &body)?;
        self.answers().map(drop)
    }

    /// What the kernel tells; nothing where it has nothing of the kind.
    fn dump(&self, kind: u16, header: Header) -> Vec<Vec<u8>> {
        let asked = self.send(kind, NLM_F_DUMP, &header.bytes());
        asked.and_then(|()| self.answers()).unwrap_or_default()
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let bytes = request(kind, flags, body);
        // SAFETY: the kernel reads as many bytes as there are.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        match sent {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Bodies of all messages up to the one that ends an answer.
    fn answers(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut bodies = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            // SAFETY: the kernel writes at most as many bytes as there is room for.
            let length = unsafe {
                libc::recv(
                    self.0.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                )
            };
            if length < 0 {
                return Err(io::Error::last_os_error());
            }
            for (kind, body) in messages(&buffer[..length as usize]) {
                match kind {
                    NLMSG_DONE => return Ok(bodies),
                    NLMSG_ERROR => {
                        return match word(body).map_or(0, |code| code as i32) {
                            0 => Ok(bodies),
                            code => Err(io::Error::from_raw_os_error(-code)),
                        };
                    }
                    _ => bodies.push(body.to_vec()),
                }
            }
        }
    }
}

fn at(index: u32, parent: u32) -> Header {
    Header {
        index,
        parent,
        ..Header::default()
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

fn half(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?))
}

fn request(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = ((MESSAGE + body.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((ATTRIBUTE + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Type and body of each message.
fn messages(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    while let (Some(length), Some(kind)) = (word(bytes), bytes.get(4..).and_then(half)) {
        let length = length as usize;
        let Some(body) = bytes.get(MESSAGE..length) else {
            break;
        };
        all.push((kind, body));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

/// Type and value of each attribute.
fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    while let (Some(length), Some(kind)) = (half(bytes), bytes.get(2..).and_then(half)) {
        let length = usize::from(length);
        let Some(value) = bytes.get(ATTRIBUTE..length) else {
            break;
        };
        all.push((kind & NLA_TYPE, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

fn kind_of<'a>(attributes: &[(u16, &'a [u8])]) -> Option<&'a str> {
    let (_, value) = attributes.iter().find(|(kind, _)| *kind == TCA_KIND)?;
    std::str::from_utf8(value.strip_suffix(b"\0")?).ok()
}

// include/uapi/linux/netlink.h
const MESSAGE: usize = 16;
const ATTRIBUTE: usize = 4;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_TYPE: u16 = 0x3fff;
/// What the kernel fills at most when it dumps.
const BUFFER: usize = 65536;

// include/uapi/linux/rtnetlink.h, pkt_sched.h, pkt_cls.h
/// Bytes of `struct tcmsg`.
const HEADER: usize = 20;
const RTM_GETQDISC: u16 = 38;
const RTM_GETTCLASS: u16 = 42;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_CHAIN: u16 = 11;
const TCA_BPF_ID: u16 = 11;
const INGRESS: u32 = 0xffff_0000;
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;
/// The device of classifiers that several devices share.
const SHARED_BLOCK: u32 = 0xffff_ffff;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(header: Header, kind: &[u8], program: u32) -> Vec<u8> {
        let mut body = header.bytes();
        body.extend(attribute(TCA_KIND, kind));
        body.extend(attribute(TCA_CHAIN, &7u32.to_ne_bytes()));
        let inside = [
            attribute(7, b"drop.bpf.o:[tc]\0"),
            attribute(TCA_BPF_ID, &program.to_ne_bytes()),
        ];
        body.extend(attribute(TCA_OPTIONS | 0x8000, &inside.concat()));
        request(44, 0, &body)
    }

    #[test]
    fn classifiers_are_read_from_what_the_kernel_tells() {
        let header = Header {
            index: 2,
            handle: 1,
            parent: CLSACT_EGRESS,
            info: 0xc000 << 16 | 3,
        };
        let stream = [
            message(header, b"bpf\0", 12),
            message(header, b"u32\0", 13),
            message(header, b"bpf\0", 14),
        ]
        .concat();
        let found: Vec<Filter> = messages(&stream)
            .into_iter()
            .filter_map(|(_, body)| Filter::read(body))
            .collect();
        let want = |program| Filter {
            header,
            chain: 7,
            program,
        };
        assert_eq!(found, [want(12), want(14)]);
        let names = BTreeMap::from([(2, "eth0".to_owned())]);
        assert_eq!(
            found[0].place(&names),
            "interface eth0 (tc egress chain 7 pref 49152 handle 0x1)"
        );
        let shared = Filter {
            header: Header {
                index: SHARED_BLOCK,
                parent: 9,
                ..header
            },
            chain: 0,
            program: 12,
        };
        assert_eq!(shared.place(&names), "block 9 (tc pref 49152 handle 0x1)");
    }

    #[test]
    fn what_is_cut_off_is_left_out() {
        let whole = message(Header::default(), b"bpf\0", 12);
        for end in 0..whole.len() {
            assert_eq!(messages(&whole[..end]), []);
            let body = &whole[MESSAGE.min(end)..end];
            assert_eq!(Filter::read(body), None, "{end}");
        }
    }
}
