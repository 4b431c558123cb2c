//! Loaders that kernels check themselves: what `pack --kernel-loader` makes, against bpftool of
//! Linux 7.2 and of 7.3, byte for byte.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::Path};

use bundle::{
    Digest, Layout,
    layout::Limits,
    light,
    loader::{Form, KernelLoader},
    media,
};
use tests::{e2e::Workshop, fixtures, lab::Cache};

/// A workshop with the key `rsa.key` and its certificate `rsa.pem`.
fn workshop() -> Workshop {
    let workshop = Workshop::new();
    for words in [
        "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.key",
        "req -x509 -new -key rsa.key -subj /O=Acme/CN=BPF -days 3 -out rsa.pem",
    ] {
        workshop.done(Path::new("openssl"), words.split_whitespace());
    }
    workshop
}

/// Fixtures that can have no loader, and why; all others have one.
const WITHOUT: &[(&str, &str)] = &[
    ("call_module", "struct-ops"),
    ("congest", "struct-ops"),
    ("order", "struct-ops"),
    ("replace_slot", "replaces"),
    ("trace_many", "no-target"),
];

/// Packs one fixture with kernel loaders signed by `rsa.key`, and reads them back.
fn packed(workshop: &Workshop, name: &str) -> (serde_json::Value, Vec<KernelLoader>) {
    let done = workshop.bpfseal_done(&format!(
        "pack {} -o {name}.tar --kernel-loader --kernel-key rsa.key --kernel-certificate rsa.pem",
        fixtures::object(name).display()
    ));
    let tar = fs::read(workshop.path(&format!("{name}.tar"))).unwrap();
    let layout = Layout::read(tar.as_slice(), &Limits::default()).unwrap();
    let mut bundle = layout.bundle().unwrap();
    bundle.check_inventory().unwrap();
    let loaders = bundle
        .manifest()
        .layers
        .iter()
        .filter(|layer| layer.media_type == media::KERNEL_LOADER)
        .map(|layer| KernelLoader::read(layout.described(layer).unwrap()).unwrap())
        .collect();
    (done, loaders)
}

#[test]
fn loaders_are_those_of_bpftool() {
    let workshop = workshop();
    let cache = Cache::open();
    // The one of 7.3 runs with the libraries of the other.
    let libraries = cache.tool_root("bpftool-sid").unwrap().join("usr");
    let backports = cache.tool_root("bpftool-backports").unwrap();
    let tools = [
        (Form::MapChecked, libraries.join("sbin/bpftool")),
        (Form::MapSigned, backports.join("usr/sbin/bpftool")),
    ];
    let runner = libraries.join("lib64/ld-linux-x86-64.so.2");
    let all = fixtures::NAMES.iter();
    for name in all.filter(|name| !WITHOUT.iter().any(|(other, _)| &other == name)) {
        let (_, loaders) = packed(&workshop, name);
        let forms: Vec<Form> = loaders.iter().map(|loader| loader.about.form).collect();
        assert_eq!(forms, Form::ALL, "{name}");
        for (loader, (form, tool)) in loaders.iter().zip(&tools) {
            let path = libraries.join("lib/x86_64-linux-gnu");
            let header = workshop.done(
                &runner,
                [
                    "--library-path",
                    path.to_str().unwrap(),
                    tool.to_str().unwrap(),
                    "-L",
                    "-S",
                    "-k",
                    "rsa.key",
                    "-i",
                    "rsa.pem",
                    "gen",
                    "skeleton",
                    fixtures::object(name).to_str().unwrap(),
                    "name",
                    name,
                ],
            );
            let theirs = light::read(header.as_bytes()).unwrap();
            let same = (
                theirs.insns == loader.loader.insns,
                theirs.data == loader.loader.data,
            );
            assert_eq!(same, (true, true), "{name} {form}");
            let signature = light::array(header.as_bytes(), b"opts_sig[]").unwrap();
            assert_eq!(loader.signature.as_ref(), Some(&signature), "{name} {form}");
            let exclusive = light::array(header.as_bytes(), b"opts_excl_hash[]").unwrap();
            assert_eq!(
                loader.exclusive_to().as_bytes()[..],
                exclusive,
                "{name} {form}"
            );
        }
    }
}

#[test]
fn an_object_without_loader_says_why() {
    let workshop = workshop();
    for (name, code) in WITHOUT {
        let (done, loaders) = packed(&workshop, name);
        assert_eq!(loaders, []);
        assert_eq!(done["kernel_loaders"][0]["obstacle"], *code, "{name}");
        let said = workshop.bpfseal(&format!("inspect {name}.tar"));
        assert!(said.out.contains(code), "{}", said.out);
    }
}

#[test]
fn the_same_key_packs_the_same_bundle() {
    let workshop = workshop();
    let (one, loaders) = packed(&workshop, "drop_port");
    let (two, _) = packed(&workshop, "drop_port");
    assert_eq!(one["digest"], two["digest"]);
    let recorded = &one["kernel_loaders"][0]["loaders"];
    let signature = loaders[0].signature.as_deref().unwrap();
    assert_eq!(
        recorded[0]["signature"],
        Digest::of(signature).to_string().as_str()
    );
    // Without a key there are loaders, and no signature is claimed.
    let object = fixtures::object("drop_port");
    let done = workshop.bpfseal_done(&format!(
        "pack {} -o x.tar --kernel-loader",
        object.display()
    ));
    let layer = &done["kernel_loaders"][0]["loaders"][0];
    assert_eq!(layer["signature"], serde_json::Value::Null);
    assert_eq!(layer["form"], "map-checked");
}
