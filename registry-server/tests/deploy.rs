//! The unit, the container recipe and the Kubernetes manifests in docs/examples/registry: that
//! they are well formed, and that what they name is what the program knows. What systemd says of
//! the unit: tests/tests/systemd.rs.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use common::backends::cached;
use serde_json::Value;

fn example(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/registry");
    fs::read_to_string(folder.join(name)).unwrap()
}

/// Every flag in `text` is one of `serve`'s.
fn knows_flags(text: &str) {
    let mut help = Command::new(env!("CARGO_BIN_EXE_bpfseal-registry"));
    let help = help.args(["serve", "--help"]).output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let known = |flag: &str| help.split_whitespace().any(|word| word == flag);
    let words = text.split([' ', '"', ',', '\n', '[', ']']);
    let flags: Vec<&str> = words.filter(|word| word.starts_with("--")).collect();
    assert!(!flags.is_empty());
    let unknown: Vec<_> = flags.iter().filter(|flag| !known(flag)).collect();
    assert_eq!(unknown, Vec::<&&str>::new());
}

#[test]
fn the_unit_starts_it_with_flags_that_it_knows() {
    let unit = example("bpfseal-registry.service");
    let start = unit.lines().find(|line| line.starts_with("ExecStart="));
    knows_flags(start.unwrap());
}

fn kubernetes_validate(manifests: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubernetes.yaml");
    fs::write(&path, manifests).unwrap();
    let program = cached("kubernetes-validate").join("bin/kubernetes-validate");
    let mut command = Command::new(program);
    command.arg("--strict").arg(path).output().unwrap()
}

/// The documents of a YAML file.
fn documents(yaml: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubernetes.yaml");
    fs::write(&path, yaml).unwrap();
    let program = "import json, sys, yaml\n\
                   print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let mut python = Command::new(cached("kubernetes-validate").join("bin/python3"));
    let read = python.args(["-c", program]).arg(path).output().unwrap();
    serde_json::from_slice(&read.stdout).unwrap()
}

#[test]
fn kubernetes_takes_the_manifests() {
    let yaml = example("kubernetes.yaml");
    let output = kubernetes_validate(&yaml);
    assert!(output.status.success(), "{output:?}");
    for (right, wrong) in [
        ("containerPort", "containerPrt"),
        ("replicas: 3", "replicas: x"),
    ] {
        let output = kubernetes_validate(&yaml.replace(right, wrong));
        assert_eq!(output.status.code(), Some(1), "{wrong}: {output:?}");
    }
}

#[test]
fn the_kubernetes_manifests_fit_together_and_the_program() {
    let yaml = example("kubernetes.yaml");
    let all = documents(&yaml);
    let of = |kind: &str| {
        all.iter()
            .find(|document| document["kind"] == kind)
            .unwrap()
    };
    let config = of("ConfigMap")["data"]["registry.toml"].as_str().unwrap();
    let pod = &of("Deployment")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    knows_flags(&container["args"].to_string());
    // Everything that the configuration names is mounted, and every mount has its volume.
    let texts = |list: &Value, key: &str| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        let mut texts: Vec<_> = list
            .map(|entry| entry[key].as_str().unwrap().to_owned())
            .collect();
        texts.sort();
        texts
    };
    let mounts = texts(&container["volumeMounts"], "mountPath");
    let paths = config.split('"').filter(|text| text.starts_with('/'));
    for path in paths {
        assert!(
            mounts.iter().any(|mount| path.starts_with(mount.as_str())),
            "{path}"
        );
    }
    let (mounted, volumes) = (&container["volumeMounts"], &pod["volumes"]);
    assert_eq!(texts(mounted, "name"), texts(volumes, "name"));
    // Ports and probes are those of the configuration, which speaks TLS.
    assert!(config.contains("listen = \"0.0.0.0:5000\"") && config.contains("[tls]"));
    assert_eq!(container["ports"][0]["containerPort"], 5000);
    assert_eq!(of("Service")["spec"]["ports"][0]["port"], 5000);
    for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        let want = serde_json::json!({ "path": path, "port": 5000, "scheme": "HTTPS" });
        assert_eq!(container[probe]["httpGet"], want);
    }
    let labels = &of("Deployment")["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&of("Service")["spec"]["selector"], labels);
    // The program takes every key, and then misses what only the pod has.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.toml");
    let absent = config.replace("/tls/", "/there-is-no/tls/");
    fs::write(&path, absent.replace("/var/lib/bpfseal-registry", "root")).unwrap();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_bpfseal-registry"));
    let serve = serve
        .args(["serve", "--config"])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8(serve.stderr).unwrap();
    let want = "error: /there-is-no/tls/tls.crt: ";
    assert!(
        serve.status.code() == Some(2) && said.starts_with(want),
        "{said}"
    );
}

#[test]
fn the_container_s_recipe_names_what_is_there() {
    let recipe = example("Containerfile");
    let command: String = recipe
        .lines()
        .filter(|line| line.starts_with("CMD"))
        .collect();
    knows_flags(&command);
    let has = |part: &str| assert!(recipe.contains(part), "{part}");
    has(&format!("rust:{}", env!("CARGO_PKG_RUST_VERSION")));
    has(&format!(
        "cargo build --release --locked -p {}",
        env!("CARGO_PKG_NAME")
    ));
    has("ENTRYPOINT [\"/usr/bin/bpfseal-registry\"]");
    // The second stage has nothing of the first but the program: roots of TLS are its own.
    let (_, second) = recipe.split_once("debian:").unwrap();
    assert!(second.contains("ca-certificates"));
    // Not root; the folder that it may write is the one that is served.
    assert!(second.contains("USER 65532") && second.contains("useradd --system --uid 65532"));
    let folder = "/var/lib/bpfseal-registry";
    let places = [
        format!("VOLUME {folder}"),
        format!("\"--root\", \"{folder}\""),
    ];
    places.iter().for_each(|place| has(place));
    // Beside the program it needs nothing but a C library.
    let program = PathBuf::from(env!("CARGO_BIN_EXE_bpfseal-registry"));
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let needed = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let c = [
        "linux-vdso",
        "libgcc_s",
        "libm.",
        "libc.",
        "/lib64/ld-linux",
        "libdl.",
        "libpthread",
        "librt.",
    ];
    let other: Vec<_> = needed
        .filter(|name| !c.iter().any(|own| name.starts_with(own)))
        .collect();
    assert_eq!(other, Vec::<&str>::new());
}
