//! `bpfseal attest verifier`: a real kernel tries a bundle's programs, and a policy asks for it.
#![expect(clippy::unwrap_used, reason = "tests")]

use bundle::{
    fixture::{Builder, insn},
    inventory::Endianness,
};
use serde_json::{Value, json};
use tests::{
    e2e::{self, Said, Workshop},
    fixtures, lab,
};

/// The kernel that tries.
const SERIES: &str = "6.12";

fn run(shop: &Workshop, words: &str) -> Said {
    shop.run(&e2e::program("bpfseal"), words.split_whitespace())
}

fn ok(shop: &Workshop, words: &str) -> Value {
    let said = run(shop, &format!("{words} --json"));
    assert_eq!(said.code, 0, "{words}: {}", said.err);
    serde_json::from_str(&said.out).unwrap()
}

#[test]
fn a_kernel_tries_every_program_and_a_policy_asks_for_it() {
    let shop = Workshop::new();
    let kernel = lab::Cache::open().kernel(SERIES).unwrap();
    let release = kernel.release.clone();
    let good = std::fs::read(fixtures::object("count_exec")).unwrap();
    shop.write("count_exec.bpf.o", good);
    shop.write("invalid.bpf.o", invalid());
    shop.write("password", "secret\n");
    ok(&shop, "keygen -o a --passphrase-file password");
    ok(
        &shop,
        "pack count_exec.bpf.o invalid.bpf.o -o x.tar --name x",
    );
    ok(&shop, "sign x.tar --key a.key --passphrase-file password");
    let enforcer = e2e::program("bpfseal-enforcer");
    let (vmlinux, enforcer) = (kernel.vmlinux.display(), enforcer.display());
    let by =
        format!("--kernel {vmlinux} --enforcer {enforcer} --key a.key --passphrase-file password");
    let said = run(&shop, &format!("attest verifier x.tar --strict {by}"));
    assert_eq!(said.code, 5, "{}", said.err);
    assert!(said.err.contains("refuses \"invalid\""), "{}", said.err);
    let made = ok(&shop, &format!("attest verifier x.tar {by}"));
    assert_eq!(
        made["predicate_type"],
        "https://github.com/bpfseal/bpfseal/verifier/v1"
    );
    let verified = ok(&shop, "verify x.tar --key a.pub");
    assert_eq!(
        verified["attestations"][0]["says"],
        json!([format!("{release}: 1 of 2 programs load")])
    );
    for (when, want) in [
        (format!("predicate.kernels.exists(k, k.release == '{release}' && size(k.build_id) == 40)"), None),
        ("predicate.kernels.all(k, k.programs.exists_one(p, p.loaded && p.name == 'count_exec' && p.verifier.processed_instructions > 10))".into(), None),
        ("predicate.kernels.all(k, k.programs.exists_one(p, !p.loaded && p.error.contains('!read_ok')))".into(), None),
        ("predicate.kernels.all(k, k.programs.all(p, p.loaded))".into(), Some("E314")),
    ] {
        shop.write(
            "policy.toml",
            format!(
                "[keys.a]\nfile = \"a.pub\"\n[[rule]]\nname = \"r\"\nscope = \"*\"\n\
                 signed_by = {{ of = [\"a\"] }}\n\
                 require = [{{ type = \"verifier-evidence\", when = \"{when}\" }}]\n"
            ),
        );
        let said = run(&shop, "verify x.tar --policy policy.toml");
        match want {
            None => assert_eq!(said.code, 0, "{when}: {}", said.err),
            Some(number) => assert!(said.err.contains(number), "{when}: {}", said.err),
        }
    }
}

/// A program that returns a register which it never wrote: `r0 = r9; exit`.
fn invalid() -> Vec<u8> {
    let mut builder = Builder::new(Endianness::Little);
    builder.bytes("license", b"GPL\0");
    let instructions = [insn(0xbf, 0, 9, 0, 0), insn(0x95, 0, 0, 0, 0)];
    builder.program("socket", "invalid", &instructions);
    builder.build()
}

#[test]
fn what_cannot_be_booted_is_no_evidence() {
    let shop = Workshop::new();
    shop.write("x.bpf.o", invalid());
    shop.write("nothing", "no kernel");
    shop.write("password", "secret\n");
    ok(&shop, "keygen -o a --passphrase-file password");
    ok(&shop, "pack x.bpf.o -o x.tar --name x");
    let enforcer = e2e::program("bpfseal-enforcer");
    let by = format!(
        "--enforcer {} --key a.key --passphrase-file password",
        enforcer.display()
    );
    for (words, code, message) in [
        (
            format!("--kernel nothing {by}"),
            5,
            "did not come to the end",
        ),
        (format!("--kernels 9.99 {by}"), 3, "no kernel 9.99"),
        (by.clone(), 2, "--kernel"),
        (
            "--kernel nothing --enforcer /bin/sh --key a.key".to_owned(),
            2,
            "is no static program",
        ),
    ] {
        let said = run(&shop, &format!("attest verifier x.tar {words}"));
        assert_eq!(said.code, code, "{words}: {}", said.err);
        assert!(said.err.contains(message), "{words}: {}", said.err);
    }
}
