use proptest::{prelude::*, proptest};
use serde_json::json;

use super::*;

fn facts() -> Facts {
    let inventory = json!({
        "name": "probe",
        "objects": [
            {
                "name": "a.bpf.o", "license": "GPL", "maps": [{ "type": "hash" }],
                "programs": [
                    { "name": "one", "type": "xdp", "insns": 2, "helpers": [] },
                    { "name": "two", "type": "xdp", "insns": 7, "helpers": ["bpf_redirect"] },
                ],
            },
            { "name": "b.bpf.o", "maps": [], "programs": [] },
        ],
    });
    Facts::of_json(inventory)
        .unwrap()
        .with_predicate(json!({
            "builder": { "id": "https://github.com/acme/x" },
            "big": 18_446_744_073_709_551_615_u64, "ratio": 0.5, "none": null,
            "kernels": [{ "release": "6.1.1", "loaded": true }],
        }))
        .unwrap()
}

fn parse(text: &str) -> Result<Condition, Flaw> {
    Condition::parse(text, About::Predicate("https://example.com/p"))
}

#[test]
fn conditions_hold_or_do_not_or_cannot_be_evaluated() {
    for (text, want) in [
        ("inventory.programs.all(p, p.insns < 10)", Ok(true)),
        ("inventory.programs.all(p, p.insns < 5)", Ok(false)),
        (
            "inventory.objects.exists(o, o.programs.exists_one(p, 'bpf_redirect' in p.helpers))",
            Ok(true),
        ),
        (
            "size(inventory.programs) == 2 && size(inventory.maps) == 1",
            Ok(true),
        ),
        (
            "inventory.programs.filter(p, p.insns > 2).map(p, p.name) == ['two']",
            Ok(true),
        ),
        (
            "inventory.programs.map(p, p.insns > 2, p.name) == ['two']",
            Ok(true),
        ),
        (
            "has(inventory.version) && inventory.version == '1'",
            Ok(false),
        ),
        (
            "predicate.builder.id.startsWith('https://github.com/acme/')",
            Ok(true),
        ),
        (
            "predicate.big == 18446744073709551615u && predicate.ratio < 1.0",
            Ok(true),
        ),
        ("predicate.none == null", Ok(true)),
        (
            "predicate.kernels.exists(k, k.release.startsWith('6.1.') && k.loaded)",
            Ok(true),
        ),
        ("predicate[\"builder\"].id != ''", Ok(true)),
        (
            "predicate.buildr.id == ''",
            Err("there is no \"buildr\" there; ask `has()` first"),
        ),
        (
            "predicate.kernels[3].loaded",
            Err("it asks for an element that is not there"),
        ),
        (
            "predicate.builder",
            Err("it is a table, neither true nor false"),
        ),
        (
            "predicate.ratio",
            Err("it is a number, neither true nor false"),
        ),
        (
            "predicate.builder.id < 3",
            Err("`<` does not go with string and int"),
        ),
        (
            "predicate.builder + 1 == 2",
            Err("a table and a number do not go together"),
        ),
        (
            "1 / (size(predicate.kernels) - 1) == 1",
            Err("it divides by zero"),
        ),
        (
            "9223372036854775807 + size(predicate.kernels) > 0",
            Err("a number becomes too large"),
        ),
        (
            "predicate.builder.all(b, b)",
            Err("`&&` does not go with bool and string"),
        ),
        // An error that decides nothing is none; one that does is no yes.
        ("predicate.x == 1 || predicate.ratio < 1.0", Ok(true)),
        (
            "predicate.x == 1 && predicate.ratio < 1.0",
            Err("there is no \"x\" there; ask `has()` first"),
        ),
        (
            "!(predicate.x == 1)",
            Err("there is no \"x\" there; ask `has()` first"),
        ),
    ] {
        let condition = parse(text).unwrap_or_else(|flaw| panic!("{text}: {flaw:?}"));
        let want = want.map_err(|clause| NotEvaluated(clause.to_owned()));
        assert_eq!(condition.holds(&facts()), want, "{text}");
    }
}

#[test]
fn flaws_are_found_where_they_are() {
    for (text, offset, words) in [
        (
            "inventory.programs.all(p, p.insns <",
            35,
            "not an expression: ",
        ),
        (
            "inventry.name == 'x'",
            0,
            "unknown variable \"inventry\"; did you mean `inventory`?",
        ),
        ("inventory.name == nam", 18, "unknown variable \"nam\""),
        (
            "inventory.programs.all(p, q.insns < 3)",
            26,
            "unknown variable \"q\"",
        ),
        ("inventory.name.matches('x.*')", 22, "`matches` is left out"),
        (
            "timestamp(inventory.name) == 1",
            9,
            "`timestamp` is left out",
        ),
        (
            "inventory.name.startWith('x')",
            24,
            "unknown function \"startWith\"; did you mean `startsWith`?",
        ),
        (
            "inventory.programs.every(p, true)",
            24,
            "unknown function \"every\"",
        ),
        (
            "1 == 1",
            0,
            "it looks at nothing; a condition is about inventory or predicate",
        ),
        (
            "inventory.name",
            0,
            "a condition is true or false; this is a string",
        ),
        (
            "inventory.nam == 'x'",
            0,
            "there is no \"nam\" there; ask `has()` first",
        ),
        (
            "inventory.programs.all(p, p.insns < 'x')",
            0,
            "`<` does not go with int and string",
        ),
        (
            "inventory.programs.all(p, p.sleepable > 1)",
            0,
            "does not go with bool and int",
        ),
        (
            "Message{a: inventory} == null",
            7,
            "unknown type \"Message\"",
        ),
        ("inventory.\u{e9} == 'x'", 10, "not an expression: "),
        ("", 0, "not an expression: "),
    ] {
        let flaw = parse(text).expect_err(text);
        assert!(flaw.message.contains(words), "{text}: {flaw:?}");
        assert_eq!(flaw.offset, offset, "{text}: {flaw:?}");
    }
    let flaw = Condition::parse("predicate.x == 1", About::Inventory).unwrap_err();
    assert!(flaw.message.contains("is an attestation's"), "{flaw:?}");
    let long = format!("inventory.name == '{}'", "x".repeat(MAX_BYTES));
    assert!(
        parse(&long)
            .unwrap_err()
            .message
            .starts_with("a condition has at most")
    );
}

#[test]
fn loops_end_after_their_steps() {
    let names: Vec<String> = (0..400).map(|n| n.to_string()).collect();
    let facts = Facts::none()
        .with_predicate(json!({ "list": names }))
        .unwrap();
    let exhausted = Err(NotEvaluated(steps::EXHAUSTED.to_owned()));
    let l = "predicate.list";
    for (text, want) in [
        (format!("{l}.all(a, {l}.exists(b, a == b))"), Ok(true)),
        (
            format!("{l}.all(a, {l}.all(b, {l}.all(c, a != '')))"),
            exhausted.clone(),
        ),
        (
            format!("!{l}.exists(a, {l}.exists(b, {l}.exists(c, a == '-')))"),
            exhausted.clone(),
        ),
        (
            format!("size({l}.map(a, {l}.map(b, {l}.map(c, a)))) == 400"),
            exhausted.clone(),
        ),
        (
            format!("size({l}.filter(a, {l}.exists_one(b, {l}.exists(c, c == '-')))) == 0"),
            exhausted.clone(),
        ),
        (
            format!("{l}.all(a, {l}.all(b, {l}.all(c, a != ''))) || true"),
            exhausted,
        ),
    ] {
        assert_eq!(parse(&text).unwrap().holds(&facts), want, "{text}");
    }
}

#[test]
fn the_deepest_expressions_fit_on_a_small_stack() {
    let deep = [
        format!("inventory{} == 1", ".a".repeat(490)),
        format!("{}inventory", "!".repeat(980)),
        format!("{}predicate.a == 1", "-".repeat(980)),
        format!("{}inventory{}", "(".repeat(490), ")".repeat(490)),
        format!("{}inventory{}", "[".repeat(490), "]".repeat(490)),
        format!("inventory.a{} == 1", "[0]".repeat(320)),
        format!("predicate.a{}", "+1".repeat(480)),
        format!("predicate.a{}", "||1".repeat(320)),
        format!("predicate.a{}", "?1:1".repeat(240)),
        format!("predicate.a{}", ".size()".repeat(140)),
        format!("predicate.a{}", "<1".repeat(480)),
        format!("{}predicate.a", "1?".repeat(480)),
        format!("{}predicate.a", "{1:".repeat(300)),
    ];
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    let run = thread.spawn(move || {
        for text in deep {
            if let Ok(condition) = parse(&text) {
                let _ = condition.holds(&facts());
            }
        }
    });
    run.unwrap().join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text_is_a_condition_or_a_flaw(
        tokens in proptest::collection::vec(proptest::sample::select(vec![
            "inventory", "predicate", ".", "name", "objects", "all", "exists", "map", "(", ")", "[",
            "]", "{", "}", ",", "p", "?", ":", "==", "<", "in", "&&", "||", "!", "-", "1", "1u",
            "1.5", "'x'", "b'x'", "'\\u", "\"", "`", "null", "has", "size", "+", "%", "/", " ", "é",
        ]), 0..30),
    ) {
        let text = tokens.concat();
        if let Ok(condition) = parse(&text) {
            let _ = condition.holds(&facts());
        }
    }
}
