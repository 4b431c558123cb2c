//! What a program is bound to: at load (`fentry:vfs_read`), or by its own declaration
//! (`kprobe:do_unlinkat`).

use std::fmt;

use bundle::inventory::Program;
use schemars::JsonSchema;
use serde::Serialize;

use crate::scope::matches;

/// Kinds of targets that the kernel binds at load, so that gate 2 can compare them.
///
/// The words are libbpf's section prefixes, except `ext` (its `freplace`), which is the
/// kernel's own word for the type.
pub const LOAD_KINDS: &[&str] = &[
    "ext",
    "fentry",
    "fexit",
    "fmod_ret",
    "fsession",
    "iter",
    "lsm",
    "lsm_cgroup",
    "struct_ops",
    "tp_btf",
];

/// A pattern over targets: `KIND:NAME`, where `*` in NAME stands for any characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct TargetPattern(String);

impl TargetPattern {
    /// Any target of any kind but `ext`, which must always be named.
    pub fn any() -> Self {
        Self("*".to_owned())
    }

    /// Reads a pattern whose kind is one of `kinds`; the error is a clause for people.
    pub fn parse(text: &str, kinds: &[&str]) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::any());
        }
        let Some((kind, name)) = text.split_once(':') else {
            return Err(format!(
                "want `kind:name` as in `{}:name*`, or `*`; got {text:?}",
                kinds.first().copied().unwrap_or("kind")
            ));
        };
        if !kinds.contains(&kind) {
            let hint = crate::spelling::did_you_mean(kind, kinds.iter().copied());
            return Err(format!("unknown kind of target {kind:?}{hint}"));
        }
        if name.is_empty() {
            return Err(format!("{text:?} names no target; `{kind}:*` is any"));
        }
        Ok(Self(text.to_owned()))
    }

    /// Does it cover the target `name` of this kind? `None`: the object does not say which.
    pub fn covers(&self, kind: &str, name: Option<&str>) -> bool {
        let Some((pattern_kind, pattern)) = self.0.split_once(':') else {
            return kind != "ext";
        };
        pattern_kind == kind && (pattern == "*" || name.is_some_and(|name| matches(pattern, name)))
    }

    /// Does it cover a function of that name in some program? `None`: the object does not say
    /// which. The gate compares program and function when the kernel has both.
    fn covers_function(&self, name: Option<&str>) -> bool {
        let Some(("ext", pattern)) = self.0.split_once(':') else {
            return false;
        };
        let function = pattern
            .rsplit_once(':')
            .map_or(pattern, |(_, function)| function);
        name.is_none_or(|name| matches(function, name))
    }

    /// The kind that it names; `None` for `*`.
    pub fn kind(&self) -> Option<&str> {
        self.0.split_once(':').map(|(kind, _)| kind)
    }
}

/// Program types whose place only the loader names, as a network device or a control group, and the
/// gate compares.
const PLACED_BY_LOADER: &[&str] = &[
    "cgroup_device",
    "cgroup_skb",
    "cgroup_sock",
    "cgroup_sock_addr",
    "cgroup_sockopt",
    "cgroup_sysctl",
    "sched_cls",
    "sock_ops",
    "xdp",
];

/// May a program of type `kind` that declares no place be attached at places that `patterns`
/// name? The gate compares them when it is attached.
pub fn covers_at_attachment(patterns: &[TargetPattern], kind: &str) -> bool {
    PLACED_BY_LOADER.contains(&kind) && patterns.iter().any(|pattern| pattern.kind() == Some(kind))
}

/// May a replacement (`ext`) of the function that its section names be loaded under these
/// patterns? Which program has the function, only its loader says.
pub fn covers_replacement(patterns: &[TargetPattern], function: Option<&str>) -> bool {
    patterns
        .iter()
        .any(|pattern| pattern.covers_function(function))
}

/// What replacements may replace: patterns of `PROGRAM:FUNCTION`; none where no pattern says so.
pub fn replaceable(patterns: &[TargetPattern]) -> Vec<String> {
    patterns
        .iter()
        .filter_map(|pattern| pattern.0.split_once(':'))
        .filter(|(kind, _)| *kind == "ext")
        .map(|(_, name)| name.to_owned())
        .collect()
}

/// The names of places that a program of type `kind` may be attached at; `None`: anywhere.
pub fn places(patterns: &[TargetPattern], kind: &str) -> Option<Vec<String>> {
    let mut places = Vec::new();
    for pattern in patterns {
        match pattern.0.split_once(':') {
            None => return None,
            Some((of, "*")) if of == kind => return None,
            Some((of, name)) if of == kind => places.push(name.to_owned()),
            Some(_) => {}
        }
    }
    Some(places)
}

/// Is a place of that name one of these patterns of [`places`]? In each, `*` stands for any characters.
pub fn is_place(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

impl fmt::Display for TargetPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the kernel binds this program to at load, as a word of [`LOAD_KINDS`]; `None` for
/// types that are bound only when attached.
pub fn load_kind(program: &Program) -> Option<&'static str> {
    let attach_type = program.attach_type.as_deref().unwrap_or_default();
    Some(match program.kind.as_str() {
        "ext" => "ext",
        "struct_ops" => "struct_ops",
        "lsm" if attach_type == "lsm_cgroup" => "lsm_cgroup",
        "lsm" => "lsm",
        "tracing" => match attach_type {
            "trace_fexit" | "trace_fexit_multi" => "fexit",
            "modify_return" => "fmod_ret",
            "trace_fsession" | "trace_fsession_multi" => "fsession",
            "trace_iter" => "iter",
            "trace_raw_tp" => "tp_btf",
            _ => "fentry",
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_programs_type() {
        let pattern = |text: &str| TargetPattern(text.to_owned());
        let rule = [pattern("xdp:eth*"), pattern("xdp:lo"), pattern("kprobe:*")];
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(places(&rule, "xdp"), names(&["eth*", "lo"]));
        assert_eq!(places(&rule, "kprobe"), None);
        assert_eq!(places(&rule, "tracepoint"), names(&[]));
        assert_eq!(places(&[TargetPattern::any()], "xdp"), None);
        let patterns = ["eth*".to_owned(), "lo".to_owned()];
        let is = ["eth0", "lo", "lo0", "xeth0", ""].map(|name| is_place(&patterns, name));
        assert_eq!(is, [true, true, false, false, false]);
        assert!(covers_at_attachment(&rule, "xdp"));
        assert!(!covers_at_attachment(&rule, "kprobe"));
        let groups = [pattern("cgroup_skb:/system.slice/*")];
        assert!(covers_at_attachment(&groups, "cgroup_skb"));
        assert!(!covers_at_attachment(&groups, "sock_ops"));
        assert!(!covers_at_attachment(&rule[2..], "xdp"));
    }

    #[test]
    fn a_replacement_names_a_function_and_the_rule_its_program() {
        let pattern = |text: &str| TargetPattern(text.to_owned());
        let rule = [pattern("*"), pattern("ext:xdp_dispatcher:prog*")];
        let covers = |name| covers_replacement(&rule, name);
        assert!(covers(Some("prog0")) && covers(None));
        assert!(!covers(Some("compat_test")));
        assert!(!covers_replacement(&rule[..1], Some("prog0")));
        assert!(covers_replacement(&[pattern("ext:*")], Some("prog0")));
        assert_eq!(replaceable(&rule), ["xdp_dispatcher:prog*"]);
        assert_eq!(replaceable(&rule[..1]), [""; 0]);
    }

    #[test]
    fn kinds_and_names_must_both_match() {
        let table = [
            ("fentry:vfs_*", "fentry", Some("vfs_read"), true),
            ("fentry:vfs_*", "fexit", Some("vfs_read"), false),
            ("fentry:vfs_*", "fentry", Some("do_exit"), false),
            ("fentry:vfs_*", "fentry", None, false),
            ("fentry:*", "fentry", None, true),
            ("*", "lsm", Some("file_open"), true),
            ("*", "ext", Some("dispatcher"), false),
            (
                "ext:xdp_dispatcher:*",
                "ext",
                Some("xdp_dispatcher:prog0"),
                true,
            ),
        ];
        for (pattern, kind, name, want) in table {
            let got = TargetPattern::parse(pattern, LOAD_KINDS)
                .unwrap()
                .covers(kind, name);
            assert_eq!(got, want, "{pattern} over {kind}:{name:?}");
        }
    }

    #[test]
    fn what_names_nothing_is_an_error() {
        let table = [
            (
                "vfs_read",
                "want `kind:name` as in `ext:name*`, or `*`; got \"vfs_read\"",
            ),
            (
                "fentri:x",
                "unknown kind of target \"fentri\"; did you mean `fentry`?",
            ),
            ("kprobes:x", "unknown kind of target \"kprobes\""),
            ("lsm:", "\"lsm:\" names no target; `lsm:*` is any"),
        ];
        for (text, want) in table {
            assert_eq!(TargetPattern::parse(text, LOAD_KINDS), Err(want.to_owned()));
        }
    }
}
