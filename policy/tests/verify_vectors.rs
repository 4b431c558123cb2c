//! `tests/vectors/verify/<claim>[_refuse]/case.toml`: one folder for each claim about
//! verification. A new case is a new folder; `tests/vectors/verify/README.md` has the keys.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, fs, path::Path, rc::Rc};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64_URL},
};
use bundle::{
    Digest, Layout,
    manifest::{Descriptor, Manifest},
    media,
    pack::{PackOptions, pack},
};
use policy::{
    Context, Policy, Refusal, key,
    signer::{self, Signer},
    statement,
};
use ring::rand::SystemRandom;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    claim: String,
    #[serde(default)]
    bundle: BundleRecipe,
    #[serde(default)]
    signature: Vec<Recipe>,
    #[serde(default)]
    policy: Rule,
    expect: Expect,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BundleRecipe {
    /// Changes this field of the recorded inventory's first object after packing.
    recorded_license: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rule {
    scope: Option<String>,
    at_least: Option<usize>,
    of: Option<Vec<String>>,
    /// Names of keys that the policy knows, name to key; `release` is key `a` by default.
    keys: BTreeMap<String, String>,
    /// `[x509.NAME]`: its lines; `roots` is `root.pem` where they do not say.
    x509: BTreeMap<String, String>,
    /// Lines of the rule.
    rule: String,
    require: Vec<String>,
    /// `until` of an exception for the bundle.
    exception: Option<String>,
    /// Whose bundle the exception is for, if not this one.
    exception_for: Option<String>,
    /// The time at which it is verified, if not now.
    now: Option<jiff::Timestamp>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Recipe {
    by: String,
    /// Chain and key in `tests/vectors/x509`, instead of a key alone.
    certificate: Option<String>,
    /// The key that really signs, where it is not the certificate's.
    key: Option<String>,
    /// Fields of the protected header, for the form `notation`.
    jws: serde_json::Map<String, serde_json::Value>,
    form: String,
    statement_type: String,
    predicate_type: String,
    /// The predicate, as JSON, instead of an empty one.
    predicate: Option<String>,
    payload_type: String,
    subject: String,
    hint: Option<String>,
    tamper: Option<String>,
    /// Time-stamped now by `tsa.pem`: `this` signature, or another.
    stamp: Option<String>,
    /// The bytes of the layer, instead of all that.
    raw: Option<String>,
    /// JSON fields that are written into the bundle after it was signed.
    bundle_adds: Option<String>,
    /// The same, into its verification material.
    material_adds: Option<String>,
    layer_type: Option<String>,
    annotations: BTreeMap<String, String>,
    simple_type: String,
    copies: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    signed_by: Option<Vec<Vec<String>>>,
    reason: Option<String>,
    detail: Option<String>,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            by: "a".into(),
            certificate: None,
            key: None,
            jws: serde_json::Map::new(),
            form: "bundle".into(),
            statement_type: "https://in-toto.io/Statement/v1".into(),
            predicate_type: media::SIGN_PREDICATE.into(),
            predicate: None,
            payload_type: media::IN_TOTO.into(),
            subject: "this".into(),
            hint: None,
            tamper: None,
            stamp: None,
            raw: None,
            bundle_adds: None,
            material_adds: None,
            layer_type: None,
            annotations: BTreeMap::new(),
            simple_type: "cosign container image signature".into(),
            copies: 1,
        }
    }
}

#[test]
fn every_claim_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/verify");
    let mut names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    names.sort();
    assert!(
        names.len() >= 200,
        "only {} vectors in {}",
        names.len(),
        folder.display()
    );
    for path in names {
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(path.join("case.toml")).unwrap();
        let case: Case = toml::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            name.ends_with("_refuse"),
            case.expect.reason.is_some(),
            "{name}: its name must say whether it is refused"
        );
        run(name, &case);
    }
}

fn run(name: &str, case: &Case) {
    let keys = Keys::new();
    let mut layout = packed(&case.bundle);
    let subject = layout.bundle_descriptor().unwrap().clone();
    for recipe in &case.signature {
        attach(&mut layout, &subject, recipe, &keys);
    }
    let (policy, scope) = policy_of(&case.policy, &keys, subject.digest);
    let now = case.policy.now.unwrap_or_else(jiff::Timestamp::now);
    let got = policy::verify(layout.bundle().unwrap(), &policy, &scope, now)
        .and_then(|verified| policy::admit(verified, &policy, &Context::of(scope.as_str())))
        .map(policy::Admitted::into_bundle);
    match (got, &case.expect) {
        (
            Ok(verified),
            Expect {
                signed_by: Some(want),
                ..
            },
        ) => {
            let mut signed_by: Vec<_> = verified
                .signed_by()
                .iter()
                .map(|s| s.names.clone())
                .collect();
            signed_by.sort();
            assert_eq!(signed_by, *want, "{name}: {}", case.claim);
            assert_eq!(verified.digest(), subject.digest, "{name}");
        }
        (
            Err(Refusal { reason, detail, .. }),
            Expect {
                reason: Some(want),
                detail: words,
                ..
            },
        ) => {
            assert_eq!(reason.code(), want, "{name}: {}: {detail}", case.claim);
            if let Some(words) = words {
                assert!(
                    detail.contains(words),
                    "{name}: {detail:?} does not say {words:?}"
                );
            }
        }
        (Ok(_), _) => panic!("{name}: was accepted: {}", case.claim),
        (Err(refusal), _) => panic!("{name}: {}: {refusal:?}", case.claim),
    }
}

struct Keys(BTreeMap<&'static str, Rc<Signer>>);

impl Keys {
    /// `a`, `b`, `c` are Ed25519, `p256` is ECDSA; new ones in each run.
    fn new() -> Self {
        let random = SystemRandom::new();
        let kinds = [
            ("a", key::Algorithm::Ed25519),
            ("b", key::Algorithm::Ed25519),
            ("c", key::Algorithm::Ed25519),
            ("p256", key::Algorithm::EcdsaP256),
        ];
        Self(
            kinds
                .into_iter()
                .map(|(name, kind)| {
                    let files = signer::generate(kind, None, &random).unwrap();
                    let mut none = || unreachable!("the key is not encrypted");
                    let (signer, _) =
                        Signer::from_pem(files.private.as_bytes(), &mut none, &random).unwrap();
                    (name, Rc::new(signer))
                })
                .collect(),
        )
    }

    /// Whoever signs by this recipe.
    fn signer(&self, recipe: &Recipe) -> Rc<Signer> {
        match (&recipe.key, &recipe.certificate) {
            (Some(key), _) => self.of(key),
            (None, None) => self.of(&recipe.by),
            (None, Some(name)) => {
                let pem = x509_file(&format!("{name}.key"));
                let mut none = || unreachable!("the key is not encrypted");
                let (signer, _) = Signer::from_pem(&pem, &mut none, &SystemRandom::new()).unwrap();
                Rc::new(signer)
            }
        }
    }

    fn of(&self, name: &str) -> Rc<Signer> {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("there is no key {name}"))
            .clone()
    }
}

/// A bundle of one object with one program that returns 0.
fn packed(recipe: &BundleRecipe) -> Layout {
    let options = PackOptions {
        name: Some("probe".into()),
        version: Some("1.0".into()),
        ..PackOptions::default()
    };
    let object = bundle::fixture::object("socket", "probe");
    let mut packed = pack(vec![("probe.bpf.o".into(), object)], &options).unwrap();
    if let Some(license) = &recipe.recorded_license {
        packed.inventory.objects[0].license = Some(license.clone());
        packed.config = serde_json::to_vec(&packed.inventory).unwrap();
        let mut manifest = Manifest::parse(&packed.manifest).unwrap();
        manifest.config = Descriptor::of(media::INVENTORY, &packed.config);
        packed.manifest = manifest.to_bytes();
    }
    packed.into_layout(Some("1.0")).unwrap()
}

fn attach(layout: &mut Layout, bundle: &Descriptor, recipe: &Recipe, keys: &Keys) {
    let about = match recipe.subject.as_str() {
        "this" => bundle.digest,
        other => Digest::of(other.as_bytes()),
    };
    let (mut layer, bytes) = match recipe.form.as_str() {
        "bundle" => sigstore_layer(about, recipe, keys),
        "simple" => simple_layer(about, recipe, keys),
        "notation" => notation_layer(about, recipe, keys),
        other => panic!("there is no form {other}"),
    };
    if let Some(layer_type) = &recipe.layer_type {
        layer.media_type.clone_from(layer_type);
    }
    layer.annotations.extend(recipe.annotations.clone());
    layout.add_blob(bytes);
    layout.add_blob(media::EMPTY_JSON.to_vec());
    let config = Descriptor::of(media::EMPTY, media::EMPTY_JSON);
    for copy in 0..recipe.copies {
        let mut manifest =
            Manifest::artifact(&layer.media_type, config.clone(), vec![layer.clone()]);
        manifest.annotations.insert("copy".into(), copy.to_string());
        let tag = format!("sha256-{}.sig", bundle.digest.to_hex());
        let simple = recipe.form == "simple";
        if !simple {
            manifest.subject = Some(bundle.clone());
        }
        layout
            .add_manifest(manifest.to_bytes(), simple.then_some(tag.as_str()))
            .unwrap();
    }
}

fn sigstore_layer(about: Digest, recipe: &Recipe, keys: &Keys) -> (Descriptor, Vec<u8>) {
    let bytes = match &recipe.raw {
        Some(raw) => raw.clone().into_bytes(),
        None => with_more(sigstore_bytes(about, recipe, keys), recipe),
    };
    (Descriptor::of(media::SIGSTORE_BUNDLE, &bytes), bytes)
}

/// The bundle as text with more fields in it, which no reader of JSON has seen.
fn with_more(bundle: Vec<u8>, recipe: &Recipe) -> Vec<u8> {
    let mut text = String::from_utf8(bundle).unwrap();
    if let Some(fields) = &recipe.bundle_adds {
        text.insert_str(text.rfind('}').unwrap(), &format!(",{fields}"));
    }
    if let Some(fields) = &recipe.material_adds {
        let material = "\"verificationMaterial\":{";
        let at = text.find(material).unwrap() + material.len();
        text.insert_str(at, &format!("{fields},"));
    }
    text.into_bytes()
}

fn sigstore_bytes(about: Digest, recipe: &Recipe, keys: &Keys) -> Vec<u8> {
    let signer = keys.signer(recipe);
    let text = String::from_utf8(statement::signed(about))
        .unwrap()
        .replace("https://in-toto.io/Statement/v1", &recipe.statement_type)
        .replace(media::SIGN_PREDICATE, &recipe.predicate_type);
    let text = match &recipe.predicate {
        None => text,
        Some(predicate) => text.replace("\"predicate\":{}", &format!("\"predicate\":{predicate}")),
    };
    let mut payload = text.into_bytes();
    let signed = policy::dsse::pre_authentication(&recipe.payload_type, &payload);
    let mut signature = signer.sign(&signed, &SystemRandom::new()).unwrap();
    match recipe.tamper.as_deref() {
        None => {}
        Some("signature") => *signature.last_mut().unwrap() ^= 1,
        Some("payload") => payload.push(b' '),
        Some(other) => panic!("cannot tamper with {other}"),
    }
    if let Some(name) = &recipe.certificate {
        let mut material = statement::chain(&chain(name));
        if let Some(what) = &recipe.stamp {
            let about = if what == "this" {
                signature.as_slice()
            } else {
                what.as_bytes()
            };
            material["timestampVerificationData"] = serde_json::json!({
                "rfc3161Timestamps": [{ "signedTimestamp": BASE64.encode(stamp(about)) }],
            });
        }
        return statement::dsse_bundle(&material, &payload, &signature);
    }
    let hint = match recipe.hint.as_deref() {
        None => signer.public_key().hint(),
        Some("") => String::new(),
        Some(name) => keys.of(name).public_key().hint(),
    };
    let bundle = statement::sigstore_bundle(&hint, &payload, &signature);
    String::from_utf8(bundle)
        .unwrap()
        .replace(media::IN_TOTO, &recipe.payload_type)
        .into_bytes()
}

/// An RFC 3161 answer about these bytes, by `openssl ts`.
fn stamp(about: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let pem = String::from_utf8(x509_file("tsa.pem")).unwrap();
    let (leaf, root) = pem.split_at(pem.find("-----END").unwrap() + 26);
    let config = "[tsa]\ndefault_tsa = t\n[t]\nserial = serial\nsigner_digest = sha256\n\
                  default_policy = 1.2.3.4.1\ndigests = sha256\ness_cert_id_alg = sha256\n\
                  signer_cert = leaf\nsigner_key = key\ncerts = root\n";
    for (name, content) in [
        ("about", about),
        ("serial", b"01\n"),
        ("config", config.as_bytes()),
        ("leaf", leaf.as_bytes()),
        ("root", root.as_bytes()),
        ("key", &x509_file("tsa.key")),
    ] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    for words in [
        "ts -query -data about -sha256 -cert -out query",
        "ts -reply -config config -section t -queryfile query -out reply",
    ] {
        let made = std::process::Command::new("openssl")
            .args(words.split(' '))
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
    }
    fs::read(folder.path().join("reply")).unwrap()
}

/// As `notation sign` makes it (`signature-envelope-jws.md`).
fn notation_layer(about: Digest, recipe: &Recipe, keys: &Keys) -> (Descriptor, Vec<u8>) {
    let signer = keys.signer(recipe);
    let (alg, number) = match signer.public_key().algorithm() {
        key::Algorithm::EcdsaP384 => ("ES384", 48),
        _ => ("ES256", 32),
    };
    let mut head = serde_json::json!({
        "alg": alg,
        "cty": "application/vnd.cncf.notary.payload.v1+json",
        "crit": ["io.cncf.notary.signingScheme"],
        "io.cncf.notary.signingScheme": "notary.x509",
        "io.cncf.notary.signingTime": "2026-01-01T00:00:00Z",
    });
    head.as_object_mut().unwrap().extend(recipe.jws.clone());
    let payload = serde_json::json!({"targetArtifact": {
        "mediaType": media::MANIFEST, "digest": about.to_string(), "size": 1,
    }});
    let (head, payload) = (
        BASE64_URL.encode(head.to_string()),
        BASE64_URL.encode(payload.to_string()),
    );
    let message = format!("{head}.{payload}");
    let der = signer
        .sign(message.as_bytes(), &SystemRandom::new())
        .unwrap();
    let mut signature = fixed(&der, number);
    match recipe.tamper.as_deref() {
        None => {}
        Some("signature") => *signature.last_mut().unwrap() ^= 1,
        Some(other) => panic!("cannot tamper with {other}"),
    }
    let chain = chain(recipe.certificate.as_deref().unwrap());
    let x5c: Vec<String> = chain.iter().map(|der| BASE64.encode(der)).collect();
    let bytes = serde_json::json!({
        "payload": payload,
        "protected": head,
        "header": { "x5c": x5c, "io.cncf.notary.signingAgent": "test" },
        "signature": BASE64_URL.encode(signature),
    })
    .to_string()
    .into_bytes();
    (Descriptor::of(media::NOTATION_JWS, &bytes), bytes)
}

/// Both numbers of an ECDSA signature at full length, from its DER.
fn fixed(der: &[u8], length: usize) -> Vec<u8> {
    let mut fixed = Vec::new();
    let mut rest = &der[2..];
    for _ in 0..2 {
        let size = usize::from(rest[1]);
        let number = &rest[2..2 + size];
        let number = &number[number.len().saturating_sub(length)..];
        fixed.resize(fixed.len() + length - number.len(), 0);
        fixed.extend_from_slice(number);
        rest = &rest[2 + size..];
    }
    fixed
}

fn chain(name: &str) -> Vec<Vec<u8>> {
    policy::x509::certificates(&x509_file(&format!("{name}.pem"))).unwrap()
}

fn x509_file(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/x509");
    fs::read(format!("{folder}/{name}")).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn simple_layer(about: Digest, recipe: &Recipe, keys: &Keys) -> (Descriptor, Vec<u8>) {
    let mut payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"r.example/probe"}},"image":{{"docker-manifest-digest":"{about}"}},"type":"{}"}},"optional":null}}"#,
        recipe.simple_type
    )
    .into_bytes();
    let mut signature = keys
        .of(&recipe.by)
        .sign(&payload, &SystemRandom::new())
        .unwrap();
    match recipe.tamper.as_deref() {
        None => {}
        Some("signature") => *signature.last_mut().unwrap() ^= 1,
        Some("payload") => payload.push(b' '),
        Some(other) => panic!("cannot tamper with {other}"),
    }
    let layer = Descriptor::of(media::SIMPLE_SIGNING, &payload).annotated(
        media::COSIGN_SIGNATURE_ANNOTATION,
        &BASE64.encode(signature),
    );
    (layer, payload)
}

fn policy_of(rule: &Rule, keys: &Keys, bundle: Digest) -> (Policy, String) {
    let mut names = rule.keys.clone();
    if names.is_empty() && rule.x509.is_empty() {
        names.insert("release".into(), "a".into());
    }
    let of = rule
        .of
        .clone()
        .unwrap_or_else(|| names.keys().chain(rule.x509.keys()).cloned().collect());
    let mut text = String::from("version = 1\n");
    for name in names.keys() {
        text += &format!("[keys.{name}]\nfile = \"{name}\"\n");
    }
    for (name, lines) in &rule.x509 {
        let roots = match lines.contains("roots = ") {
            true => "",
            false => "roots = \"root.pem\"\n",
        };
        text += &format!("[x509.{name}]\n{roots}{lines}\n");
    }
    text += &format!(
        "[[rule]]\nname = \"probes\"\nscope = \"r.example/*\"\nsigned_by = {{ at_least = {}, of = {of:?} }}\n{}\n",
        rule.at_least.unwrap_or(1),
        rule.rule,
    );
    if !rule.require.is_empty() {
        text += &format!("require = {:?}\n", rule.require);
    }
    if let Some(until) = &rule.exception {
        let bundle = match &rule.exception_for {
            None => bundle,
            Some(other) => Digest::of(other.as_bytes()),
        };
        text +=
            &format!("[[exception]]\nbundle = \"{bundle}\"\nreason = \"INC-1\"\nuntil = {until}\n");
    }
    let load = |name: &str| match name.contains('.') {
        true => Ok(x509_file(name)),
        false => Ok(keys.of(&names[name]).public_key().to_pem().into_bytes()),
    };
    let policy = Policy::parse(&text, &load).unwrap_or_else(|e| panic!("{e}\n{text}"));
    (
        policy,
        rule.scope
            .clone()
            .unwrap_or_else(|| "r.example/probe".into()),
    )
}
