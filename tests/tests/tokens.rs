//! Keys in a token: SoftHSM, through PKCS#11.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::PathBuf};

use serde_json::Value;
use tests::{
    e2e::{self, Said, Workshop},
    fixtures, lab,
};

/// A token with the keys of `KEYS`, and bundles to sign.
struct Token {
    shop: Workshop,
    module: PathBuf,
    variables: Vec<(&'static str, String)>,
}

/// Label, identifier and PEM file of each key.
const KEYS: [(&str, &str); 3] = [("p256", "01"), ("p384", "02"), ("rsa2048", "03")];

impl Token {
    fn new() -> Self {
        let shop = Workshop::new();
        let tool = lab::Cache::open().tool("softhsm2").unwrap();
        let root = tool.join("root/usr/lib");
        let module = fs::canonicalize(root.join("softhsm/libsofthsm2.so")).unwrap();
        fs::create_dir(shop.path("tokens")).unwrap();
        let folder = shop.path("tokens");
        let config = format!("directories.tokendir = {}\n", folder.display());
        let config = shop.write("softhsm2.conf", config);
        let variables = vec![
            ("SOFTHSM2_CONF", config.display().to_string()),
            // The library's own libraries; none of them is the C library.
            (
                "LD_LIBRARY_PATH",
                root.join("x86_64-linux-gnu").display().to_string(),
            ),
        ];
        let token = Self {
            shop,
            module,
            variables,
        };
        token.fill(&tool.join("bin/softhsm2-util"));
        token
    }

    fn fill(&self, util: &std::path::Path) {
        let module = self.module.display();
        let administer = |words: String| {
            let words = format!("--module {module} --token t --pin 1234 {words}");
            let said = self
                .shop
                .run_with(util, words.split_whitespace(), &self.variables());
            assert_eq!(said.code, 0, "{words}: {}{}", said.out, said.err);
        };
        let words =
            format!("--module {module} --init-token --free --label t --so-pin 5678 --pin 1234");
        let said = self
            .shop
            .run_with(util, words.split_whitespace(), &self.variables());
        assert_eq!(said.code, 0, "{}{}", said.out, said.err);
        self.ok("keygen -o p256 --no-passphrase");
        let vectors = lab::workspace().join("tests/vectors/x509");
        for (label, id) in KEYS {
            if label != "p256" {
                let key = fs::read(vectors.join(format!("{label}.key"))).unwrap();
                self.shop.write(&format!("{label}.key"), key);
            }
            administer(format!("--import {label}.key --label {label} --id {id}"));
        }
        let object = fs::read(fixtures::object("count_exec")).unwrap();
        self.shop.write("x.bpf.o", object);
        self.shop.write("pin", "1234\n");
        self.shop.write("wrong", "4321\n");
    }

    fn variables(&self) -> Vec<(&str, &str)> {
        let variables = self.variables.iter();
        variables
            .map(|(name, value)| (*name, value.as_str()))
            .collect()
    }

    fn run(&self, words: &str) -> Said {
        let program = e2e::program("bpfseal");
        self.shop
            .run_with(&program, words.split_whitespace(), &self.variables())
    }

    fn ok(&self, words: &str) -> Value {
        let said = self.run(&format!("{words} --json"));
        assert_eq!(said.code, 0, "{words}: {}", said.err);
        serde_json::from_str(&said.out).unwrap()
    }

    fn uri(&self, key: &str) -> String {
        format!("pkcs11:token=t;{key}?module-path={}", self.module.display())
    }
}

#[test]
fn a_token_signs_by_each_kind_of_key() {
    let token = Token::new();
    for (label, id) in KEYS {
        // The same key, read from its file, says what the public half is.
        token.ok("pack x.bpf.o -o x.tar --name x");
        let by_file = token.ok(&format!("sign x.tar -o other.tar --key {label}.key"));
        let uri = token.uri(&format!("object={label}"));
        let made = token.ok(&format!("sign x.tar --key {uri} --passphrase-file pin"));
        assert_eq!(made["key"], by_file["key"], "{label}");
        let uri = format!("{}&pin-source=file:pin", token.uri(&format!("id=%{id}")));
        token.ok(&format!("attest x.tar --inventory --key {uri}"));
        token.ok(&format!("sign-blob x.bpf.o --bundle b.json --key {uri}"));
        let policy = format!(
            "[keys.k]\npem = '''{}'''\n[[rule]]\nname = \"r\"\nscope = \"*\"\n\
             signed_by = {{ of = [\"k\"] }}\nrequire = [\"inventory\"]\n",
            public(&token, label)
        );
        token.shop.write("policy.toml", policy);
        token.ok("verify x.tar --policy policy.toml");
    }
}

/// By openssl, which had no part in the signature.
fn public(token: &Token, label: &str) -> String {
    let words = format!("pkey -in {label}.key -pubout");
    let openssl = std::path::Path::new("openssl");
    let said = token.shop.run(openssl, words.split_whitespace());
    assert_eq!(said.code, 0, "{}", said.err);
    said.out
}

#[test]
fn what_a_token_cannot_do_is_said() {
    let token = Token::new();
    token.ok("pack x.bpf.o -o x.tar --name x");
    let module = format!("?module-path={}", token.module.display());
    for (key, pin, code, words) in [
        (token.uri("object=p256"), "wrong", 2, "the PIN is wrong"),
        (
            token.uri("object=other"),
            "pin",
            3,
            "has no such private key",
        ),
        (
            token.uri("object=p256;id=%02"),
            "pin",
            3,
            "has no such private key",
        ),
        (
            format!("pkcs11:token=u;object=p256{module}"),
            "pin",
            3,
            "there are: t",
        ),
        (
            "pkcs11:object=p256".to_owned(),
            "pin",
            2,
            "names no library",
        ),
        (
            "pkcs11:object=p256?module-path=/none.so".to_owned(),
            "pin",
            2,
            "cannot load /none.so",
        ),
        (
            format!("{}&pin-value=1234", token.uri("object=p256")),
            "pin",
            2,
            "everybody's",
        ),
        ("gcpkms://x".to_owned(), "pin", 2, "plugin:PROGRAM#KEY"),
    ] {
        let said = token.run(&format!("sign x.tar --key {key} --passphrase-file {pin}"));
        assert_eq!(said.code, code, "{key}: {}", said.err);
        assert!(said.err.contains(words), "{key}: {}", said.err);
    }
}
