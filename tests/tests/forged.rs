//! Forged variants of good keyless bundles: each thing that a verifier has to look at is changed,
//! taken away, or taken from another good bundle, and none of them verifies.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bundle::{
    Digest,
    layout::{Layout, Limits},
};
use policy::{
    Reason,
    sigstore::{Subject, TrustRoot, parse, prove_identity},
};
use serde_json::{Value, json};
use tests::sigstore::{FLOW, LogApi, Scene};

/// A good bundle, another one by the same deployment about something else, and one of another
/// deployment about the same.
struct Goods {
    api: LogApi,
    good: Value,
    another: Value,
    foreign: Value,
    subject: Digest,
    root: TrustRoot,
}

/// What is forged, and how; `false`: it does not apply.
type Forgery = (&'static str, fn(&mut Value, &Goods) -> bool);

const FORGERIES: &[Forgery] = &[
    ("another hash in the inclusion proof", |bundle, _| {
        turn(&mut entry(bundle)["inclusionProof"]["hashes"][0])
    }),
    ("an inclusion proof without hashes", |bundle, _| {
        set(&mut entry(bundle)["inclusionProof"]["hashes"], json!([]))
    }),
    ("an inclusion proof with one hash more", |bundle, _| {
        let hashes = entry(bundle)["inclusionProof"]["hashes"]
            .as_array_mut()
            .unwrap();
        hashes.push(BASE64.encode([7; 32]).into());
        true
    }),
    ("another root hash", |bundle, _| {
        turn(&mut entry(bundle)["inclusionProof"]["rootHash"])
    }),
    ("another size of the tree", |bundle, _| {
        set(
            &mut entry(bundle)["inclusionProof"]["treeSize"],
            json!("4000000"),
        )
    }),
    ("another index in the tree", |bundle, _| {
        set(&mut entry(bundle)["inclusionProof"]["logIndex"], json!("0"))
    }),
    ("an index beyond the tree", |bundle, _| {
        set(
            &mut entry(bundle)["inclusionProof"]["logIndex"],
            json!("9000000"),
        )
    }),
    ("no inclusion proof", |bundle, _| {
        set(&mut entry(bundle)["inclusionProof"], Value::Null)
    }),
    ("the inclusion proof of another entry", |bundle, goods| {
        let proof = entry(&mut goods.another.clone())["inclusionProof"].clone();
        set(&mut entry(bundle)["inclusionProof"], proof)
    }),
    ("no checkpoint", |bundle, _| {
        set(
            &mut entry(bundle)["inclusionProof"]["checkpoint"],
            Value::Null,
        )
    }),
    ("the checkpoint of another entry", |bundle, goods| {
        let checkpoint = checkpoint(&mut goods.another.clone()).clone();
        set(self::checkpoint(bundle), checkpoint)
    }),
    ("the checkpoint of another log", |bundle, goods| {
        let checkpoint = checkpoint(&mut goods.foreign.clone()).clone();
        set(self::checkpoint(bundle), checkpoint)
    }),
    ("a checkpoint with another signature", |bundle, goods| {
        let of = |bundle: &Value| checkpoint(&mut bundle.clone()).as_str().unwrap().to_owned();
        let (ours, other) = (of(&goods.good), of(&goods.another));
        let (text, _) = ours.split_once("\n\n").unwrap();
        let (_, signature) = other.split_once("\n\n").unwrap();
        set(checkpoint(bundle), format!("{text}\n\n{signature}").into())
    }),
    ("a checkpoint without signatures", |bundle, goods| {
        let text = checkpoint(&mut goods.good.clone())
            .as_str()
            .unwrap()
            .to_owned();
        let (text, _) = text.split_once("\n\n").unwrap();
        set(checkpoint(bundle), format!("{text}\n\n").into())
    }),
    ("no log entry", |bundle, _| {
        set(
            &mut bundle["verificationMaterial"]["tlogEntries"],
            json!([]),
        )
    }),
    ("the log entry of another signature", |bundle, goods| {
        set(entry(bundle), entry(&mut goods.another.clone()).clone())
    }),
    ("the log entry of another deployment", |bundle, goods| {
        set(entry(bundle), entry(&mut goods.foreign.clone()).clone())
    }),
    (
        "a second log entry, of another signature",
        |bundle, goods| {
            let second = entry(&mut goods.another.clone()).clone();
            let entries = bundle["verificationMaterial"]["tlogEntries"].as_array_mut();
            entries.unwrap().push(second);
            true
        },
    ),
    ("the promise of another entry", |bundle, goods| {
        let promise = entry(&mut goods.another.clone())["inclusionPromise"].clone();
        goods.api == LogApi::First && set(&mut entry(bundle)["inclusionPromise"], promise)
    }),
    ("no promise, and with it no time", |bundle, goods| {
        goods.api == LogApi::First && set(&mut entry(bundle)["inclusionPromise"], Value::Null)
    }),
    ("a promise of another log", |bundle, goods| {
        let promise = entry(&mut goods.foreign.clone())["inclusionPromise"].clone();
        goods.api == LogApi::First && set(&mut entry(bundle)["inclusionPromise"], promise)
    }),
    ("another time of the entry", |bundle, goods| {
        goods.api == LogApi::First && set(&mut entry(bundle)["integratedTime"], json!("1700000000"))
    }),
    ("a time in the future", |bundle, goods| {
        goods.api == LogApi::First && set(&mut entry(bundle)["integratedTime"], json!("4000000000"))
    }),
    ("another index of the entry", |bundle, _| {
        set(&mut entry(bundle)["logIndex"], json!("77"))
    }),
    ("another log", |bundle, _| {
        turn(&mut entry(bundle)["logId"]["keyId"])
    }),
    ("another kind of entry", |bundle, goods| {
        let kind = match goods.api {
            LogApi::First => json!({ "kind": "intoto", "version": "0.0.2" }),
            LogApi::Second => json!({ "kind": "hashedrekord", "version": "0.0.1" }),
        };
        set(&mut entry(bundle)["kindVersion"], kind)
    }),
    ("the body of another entry", |bundle, goods| {
        let body = entry(&mut goods.another.clone())["canonicalizedBody"].clone();
        set(&mut entry(bundle)["canonicalizedBody"], body)
    }),
    ("no body", |bundle, _| {
        set(&mut entry(bundle)["canonicalizedBody"], Value::Null)
    }),
    ("a body with a byte behind it", |bundle, _| {
        append(&mut entry(bundle)["canonicalizedBody"])
    }),
    ("a certificate with a byte behind it", |bundle, _| {
        append(&mut bundle["verificationMaterial"]["certificate"]["rawBytes"])
    }),
    ("a certificate with another signature", |bundle, _| {
        turn(&mut bundle["verificationMaterial"]["certificate"]["rawBytes"])
    }),
    ("the certificate of another signature", |bundle, goods| {
        let certificate = goods.another["verificationMaterial"]["certificate"].clone();
        set(
            &mut bundle["verificationMaterial"]["certificate"],
            certificate,
        )
    }),
    ("the certificate of another authority", |bundle, goods| {
        let certificate = goods.foreign["verificationMaterial"]["certificate"].clone();
        set(
            &mut bundle["verificationMaterial"]["certificate"],
            certificate,
        )
    }),
    ("no time stamp", |bundle, goods| {
        goods.api == LogApi::Second && set(stamps(bundle), json!([]))
    }),
    ("the time stamp of another signature", |bundle, goods| {
        goods.api == LogApi::Second
            && set(stamps(bundle), stamps(&mut goods.another.clone()).clone())
    }),
    ("a time stamp with a byte behind it", |bundle, goods| {
        goods.api == LogApi::Second && append(&mut stamps(bundle)[0]["signedTimestamp"])
    }),
    ("a time stamp with another signature", |bundle, goods| {
        goods.api == LogApi::Second && turn(&mut stamps(bundle)[0]["signedTimestamp"])
    }),
    (
        "a second time stamp, of another signature",
        |bundle, goods| {
            let second = stamps(&mut goods.another.clone())[0].clone();
            let Some(stamps) = stamps(bundle).as_array_mut() else {
                return false;
            };
            stamps.push(second);
            goods.api == LogApi::Second
        },
    ),
    ("the signature of another bundle", |bundle, goods| {
        set(
            signature(bundle),
            signature(&mut goods.another.clone()).clone(),
        )
    }),
    ("a signature with a byte behind it", |bundle, _| {
        append(signature(bundle))
    }),
    ("no signature", |bundle, _| {
        set(signature(bundle), json!(""))
    }),
    ("the content of another bundle", |bundle, goods| {
        for content in ["messageSignature", "dsseEnvelope"] {
            bundle[content] = goods.another[content].clone();
        }
        true
    }),
    ("another digest of the message", |bundle, _| {
        let message = &mut bundle["messageSignature"];
        !message.is_null() && turn(&mut message["messageDigest"]["digest"])
    }),
    ("another algorithm of the message", |bundle, _| {
        let message = &mut bundle["messageSignature"];
        !message.is_null()
            && set(
                &mut message["messageDigest"]["algorithm"],
                json!("SHA2_512"),
            )
    }),
    ("two signatures of the envelope", |bundle, goods| {
        let another = goods.another["dsseEnvelope"]["signatures"][0].clone();
        let signatures = bundle["dsseEnvelope"]["signatures"].as_array_mut();
        signatures.map(|all| all.push(another)).is_some()
    }),
    ("the envelope's signature twice", |bundle, _| {
        let signatures = bundle["dsseEnvelope"]["signatures"].as_array_mut();
        signatures.map(|all| all.push(all[0].clone())).is_some()
    }),
    ("another type of the payload", |bundle, _| {
        let envelope = &mut bundle["dsseEnvelope"];
        !envelope.is_null() && set(&mut envelope["payloadType"], json!("application/json"))
    }),
    ("a payload with a byte behind it", |bundle, _| {
        let envelope = &mut bundle["dsseEnvelope"];
        !envelope.is_null() && append(&mut envelope["payload"])
    }),
    ("both contents", |bundle, _| {
        let both = json!({ "signature": "AA==" });
        bundle["messageSignature"].is_null() && set(&mut bundle["messageSignature"], both)
    }),
    ("a media type of nothing", |bundle, _| {
        set(&mut bundle["mediaType"], json!("application/json"))
    }),
];

fn entry(bundle: &mut Value) -> &mut Value {
    &mut bundle["verificationMaterial"]["tlogEntries"][0]
}

fn checkpoint(bundle: &mut Value) -> &mut Value {
    &mut entry(bundle)["inclusionProof"]["checkpoint"]["envelope"]
}

fn stamps(bundle: &mut Value) -> &mut Value {
    &mut bundle["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"]
}

fn signature(bundle: &mut Value) -> &mut Value {
    match bundle["dsseEnvelope"].is_null() {
        true => &mut bundle["messageSignature"]["signature"],
        false => &mut bundle["dsseEnvelope"]["signatures"][0]["sig"],
    }
}

fn set(place: &mut Value, value: Value) -> bool {
    *place = value;
    true
}

/// Changes the last byte of what is there in base64.
fn turn(place: &mut Value) -> bool {
    let mut bytes = BASE64.decode(place.as_str().unwrap()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    set(place, BASE64.encode(bytes).into())
}

/// Adds a byte to what is there in base64.
fn append(place: &mut Value) -> bool {
    let mut bytes = BASE64.decode(place.as_str().unwrap()).unwrap();
    bytes.push(0);
    set(place, BASE64.encode(bytes).into())
}

fn judge(bundle: &str, goods: &Goods) -> Result<(), Reason> {
    let bundle = parse(bundle.as_bytes()).map_err(|refusal| refusal.reason)?;
    let proof = prove_identity(&bundle, Subject::Digest(goods.subject), &goods.root);
    let proof = proof.map_err(|refusal| refusal.reason)?;
    assert_eq!(proof.identity.unwrap().identity, FLOW);
    Ok(())
}

/// A bundle about the file `what`.
fn signed(scene: &Scene, config: &str, what: &str) -> Value {
    let token = scene.token(json!({ "sub": FLOW }));
    scene.workshop.bpfseal_done(&format!(
        "sign-blob --identity-token {token} --bundle b.json --signing-config {config}.json {what}"
    ));
    serde_json::from_slice(&fs::read(scene.workshop.path("b.json")).unwrap()).unwrap()
}

/// The statement in an envelope that is attached to a bundle of this version, and the digest.
fn attached(scene: &Scene, config: &str, version: &str) -> (Value, Digest) {
    let object = bundle::fixture::object("socket", "probe");
    scene.workshop.write("x.bpf.o", object);
    let token = scene.token(json!({ "sub": FLOW }));
    let by = format!("--identity-token {token} --signing-config {config}.json");
    let pack = format!("pack x.bpf.o -o x.tar --name net/x --version {version}");
    scene.workshop.bpfseal_done(&pack);
    scene.workshop.bpfseal_done(&format!("sign x.tar {by}"));
    let tar = fs::read(scene.workshop.path("x.tar")).unwrap();
    let layout = Layout::read(tar.as_slice(), &Limits::default()).unwrap();
    let bundle = layout.bundle().unwrap();
    let layer = bundle.referrers()[0].layers[0].as_ref().unwrap();
    (serde_json::from_slice(layer).unwrap(), bundle.digest())
}

fn goods(scene: &Scene, other: &Scene, api: LogApi, config: &str) -> [Goods; 2] {
    let root = || TrustRoot::from_json(scene.sigstore.trusted_root().as_bytes()).unwrap();
    // A log's first entry has a proof without hashes, of which none can be forged.
    signed(scene, config, "other");
    let (good, digest) = attached(scene, config, "1.0");
    [
        Goods {
            api,
            good: signed(scene, config, "tool"),
            another: signed(scene, config, "other"),
            foreign: signed(other, config, "tool"),
            subject: Digest::of(b"a tool"),
            root: root(),
        },
        Goods {
            api,
            good,
            another: attached(scene, config, "2.0").0,
            foreign: attached(other, config, "1.0").0,
            subject: digest,
            root: root(),
        },
    ]
}

fn nothing_forged_verifies(goods: &Goods) -> usize {
    assert_eq!(judge(&goods.good.to_string(), goods), Ok(()));
    let mut accepted = Vec::new();
    let mut tried = 0;
    for (name, forge) in FORGERIES {
        let mut bundle = goods.good.clone();
        if !forge(&mut bundle, goods) {
            continue;
        }
        assert_ne!(bundle, goods.good, "{name} changes nothing");
        tried += 1;
        if judge(&bundle.to_string(), goods).is_ok() {
            accepted.push(*name);
        }
    }
    // What JSON itself can say in two ways.
    let text = goods.good.to_string();
    for (name, twice) in [
        (
            "mediaType",
            text.replacen(
                '{',
                "{\"mediaType\":\"application/vnd.dev.sigstore.bundle.v0.3+json\",",
                1,
            ),
        ),
        (
            "tlogEntries",
            text.replacen("\"tlogEntries\":", "\"tlogEntries\":[],\"tlogEntries\":", 1),
        ),
        ("behind", format!("{text}{{}}")),
    ] {
        tried += 1;
        assert_eq!(
            judge(&twice, goods),
            Err(Reason::MalformedSignature),
            "{name}"
        );
    }
    assert!(accepted.is_empty(), "{:?}: {accepted:#?}", goods.api);
    // None of it is about another subject, whatever else is right.
    let another = goods.another.to_string();
    assert_eq!(judge(&another, goods), Err(Reason::WrongSubject));
    tried
}

#[test]
fn nothing_forged_verifies_with_stand_ins() {
    let (scene, other) = (Scene::new(), Scene::new());
    for (api, config) in tests::sigstore::APIS {
        for goods in goods(&scene, &other, api, config) {
            assert!(nothing_forged_verifies(&goods) >= 40);
        }
    }
}

#[test]
fn nothing_forged_verifies_with_the_real_log() {
    let (scene, other) = (Scene::with_real_services(), Scene::new());
    for goods in goods(&scene, &other, LogApi::Second, "second") {
        assert!(nothing_forged_verifies(&goods) >= 40);
    }
}

#[test]
fn a_certificate_without_its_log_s_promise_certifies_nothing() {
    let scene = Scene::new();
    let root = TrustRoot::from_json(scene.sigstore.trusted_root().as_bytes()).unwrap();
    for lie in [
        "no promise",
        "a promise of another log",
        "a promise for another certificate",
    ] {
        let token = scene.token(json!({ "sub": FLOW, "lie": lie }));
        scene.workshop.bpfseal_done(&format!(
            "sign-blob --identity-token {token} --bundle b.json --signing-config second.json tool"
        ));
        let bundle = parse(&fs::read(scene.workshop.path("b.json")).unwrap()).unwrap();
        let refused = prove_identity(&bundle, Subject::Bytes(b"a tool"), &root);
        assert_eq!(refused.unwrap_err().reason, Reason::BadCertificate, "{lie}");
        let kept = format!("--trusted-root root.json --bundle {}", "kept.json");
        let (code, _) = scene.workshop.bpfseal_refusal(&format!(
            "sign-blob --identity-token {token} --signing-config second.json {kept} tool"
        ));
        assert_eq!(
            (code, Path::new(&scene.workshop.path("kept.json")).exists()),
            (1, false)
        );
    }
}
