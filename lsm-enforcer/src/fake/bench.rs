//! A pretended worker, and what it measures.

use std::{collections::BTreeMap, path::Path};

use bundle::{
    Digest,
    explain::{Difference, What},
    image::{Contents, Identity, Image, MapSpec},
    inventory::{Endianness, Needs, Object},
};
use jiff::Timestamp;
use policy::{
    Reason,
    revocation::{Signatory, Signer},
};

use super::{World, authority, somebody};
use crate::{
    failure::Failure,
    trust::Trusted,
    workshop::{Approved, Finding, Limits, Measured, Stream, Task, Verdict, Workshop},
};

/// Pretended worker: a bundle is `name=… version=… programs=a,b`, and the policy admits the
/// names in `scope`; before the time in `since=…` it is refused.
pub struct Bench(pub World);

impl Bench {
    /// A program whose target any module has, and nobody else; or that calls a function of one.
    fn for_module(&self, program: &str) -> Result<Image, String> {
        let module = self.0.change(|state| state.modules.keys().next().cloned());
        let module = module.ok_or_else(|| format!("no loaded module has {program}"))?;
        let mut image = image(program);
        if program.starts_with("call_") {
            image.calls = BTreeMap::from([(1, module)]);
        } else {
            image.module = Some(module);
        }
        Ok(image)
    }
}

impl Workshop for Bench {
    fn verify(&self, task: &Task<'_>) -> Result<Verdict, Failure> {
        let text = String::from_utf8(task.bundle.to_vec()).unwrap();
        let bundle = words(&text);
        let Some(name) = bundle.get("name") else {
            return Err(Failure::refused(Reason::MalformedBundle, "no index.json"));
        };
        let since = bundle.get("since").map(|since| since.parse().unwrap());
        if since.is_some_and(|since: Timestamp| task.now < since) {
            return Err(Failure::refused(Reason::TooOld, "signed in the future"));
        }
        let policy = Trusted::verify(task.document, &authority().public)?;
        let exception = policy.policy().exception_for(Digest::of(task.bundle));
        let exception = exception.filter(|exception| exception.holds(task.now));
        if exception.is_none() && policy.policy().rule_for(name).is_none() {
            return Err(Failure::refused(
                Reason::NoRule,
                format!("no rule covers {name:?}"),
            ));
        }
        Ok(Verdict {
            bundle: Digest::of(task.bundle),
            name: Some(name.clone()),
            version: bundle.get("version").cloned(),
            scope: task.scope.unwrap_or(name).to_owned(),
            rule: exception.map_or_else(
                || "rule \"all\", line 1".to_owned(),
                |exception| exception.reference().to_string(),
            ),
            signers: vec!["release".to_owned()],
            signatories: vec![Signer {
                who: Signatory::Key(somebody().public.id()),
                entries: vec!["release".to_owned()],
            }],
            at_least: usize::from(exception.is_none()),
            until: exception.map(|exception| exception.until),
            objects: vec![Approved {
                name: "object.bpf.o".to_owned(),
                elf: bundle["programs"].as_bytes().to_vec(),
                size: bundle["programs"].len(),
                inventory: object(),
                limits: Limits::default(),
            }],
        })
    }

    fn measure(&self, object: &Approved) -> Result<Vec<Measured>, Failure> {
        let programs = String::from_utf8(object.elf.clone()).unwrap();
        Ok(programs
            .split(',')
            .map(|program| Measured {
                program: program.to_owned(),
                image: match program {
                    "unmeasurable" => Err("no such function in this kernel".to_owned()),
                    _ if ["nf_", "call_"].iter().any(|of| program.starts_with(of)) => {
                        self.for_module(program)
                    }
                    _ => Ok(image(program)),
                },
                others: match program {
                    "laidout" => vec![other_layout(program)],
                    _ => Vec::new(),
                },
                unchecked: None,
            })
            .collect())
    }

    /// A kernel whose file's name says what it lacks.
    fn measure_for(&self, object: &Approved, kernel: &Path) -> Result<Vec<Measured>, Failure> {
        let mut measured = self.measure(object)?;
        for program in &mut measured {
            if kernel.ends_with(&program.program) {
                program.image = Err("no such function in that kernel".to_owned());
            }
        }
        Ok(measured)
    }

    /// A stream is its program's image, or the image in yet another layout.
    fn explain(
        &self,
        object: &Approved,
        measured: &[Measured],
        stream: &Stream,
    ) -> Result<Vec<Finding>, Failure> {
        let images = measured.iter().filter_map(|m| m.image.as_ref().ok());
        let findings = images.map(|image| {
            let proven = Image {
                words: stream.words.clone(),
                ..image.clone()
            };
            let fits = stream.words.last() == Some(&0x95);
            Finding {
                object: object.name.clone(),
                program: image.name.clone(),
                difference: (!fits).then(|| Difference {
                    program: image.name.clone(),
                    at: Some(0),
                    function: None,
                    what: What::Extra { count: 1 },
                }),
                functions: vec![(image.name.clone(), 0)],
                image: fits.then_some(proven),
            }
        });
        Ok(findings.collect())
    }
}

fn words(text: &str) -> BTreeMap<String, String> {
    text.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// An object with nothing in it.
fn object() -> Object {
    Object {
        name: "object.bpf.o".to_owned(),
        digest: Digest::of(b""),
        size: 0,
        endianness: Endianness::Little,
        license: None,
        btf: true,
        btf_ext: true,
        programs: Vec::new(),
        subprograms: Vec::new(),
        maps: Vec::new(),
        data: Vec::new(),
        externs: Vec::new(),
        needs: Needs::default(),
    }
}

/// The same program as another loader makes it.
fn other_layout(name: &str) -> Image {
    Image {
        words: vec![0xbf, 0x95],
        ..image(name)
    }
}

/// An image with read-only data, an event map and a hash.
pub fn image(name: &str) -> Image {
    let map = |name: &str, map_type, max_entries, contents| MapSpec {
        name: name.to_owned(),
        map_type,
        key_size: 4,
        value_size: 8,
        max_entries: (max_entries, max_entries),
        flags: 0,
        flags_free: 0,
        inner: None,
        contents,
    };
    let rodata = Contents {
        bytes: vec![0; 8],
        tunables: Vec::new(),
    };
    Image {
        name: name.to_owned(),
        identity: Identity {
            prog_type: 5,
            expected_attach_type: 0,
            attach_btf_id: 0,
            flags: 0,
        },
        words: vec![0xb7, 0x95],
        maps: vec![
            map("opensnoo.rodata", 2, 1, Some(rodata)),
            map("events", 27, 4096, None),
            map("start", 1, 10, None),
        ],
        places: Vec::new(),
        result: None,
        gpl: None,
        module: None,
        calls: BTreeMap::new(),
    }
}
