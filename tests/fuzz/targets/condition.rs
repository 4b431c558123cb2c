//! A condition of a policy: one that is taken has a value or says why not, in bounded time.
#![no_main]

use std::sync::OnceLock;

use bundle::inventory::{self, Inventory};
use policy::condition::{About, Condition, Facts};

libfuzzer_sys::fuzz_target!(|text: &str| {
    static FACTS: OnceLock<Facts> = OnceLock::new();
    let facts = FACTS.get_or_init(facts);
    for about in [About::Inventory, About::Predicate("https://slsa.dev/provenance/v1")] {
        match Condition::parse(text, about) {
            Ok(condition) => drop(condition.holds(facts)),
            Err(flaw) => assert!(!flaw.message.is_empty()),
        }
    }
});

fn facts() -> Facts {
    let object = bundle::fixture::object("xdp", "x");
    let object = inventory::read("x.o", &object).expect("a good object is read");
    let facts = Facts::of(&Inventory::of(vec![object])).expect("it is small");
    let predicate = serde_json::json!({ "runDetails": { "builder": { "id": "https://b.test" } } });
    facts.with_predicate(predicate).expect("it is small")
}
