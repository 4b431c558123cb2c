//! An inventory as a software bill of materials: CycloneDX 1.6, as JSON.
//!
//! Without serial number and time, so that one inventory gives one document. Source:
//! CycloneDX specification, `bom-1.6.schema.json`.

use serde_json::{Value, json};

use crate::inventory::{Inventory, Object, Program};

/// The document of a bundle with this inventory.
pub fn document(inventory: &Inventory) -> Value {
    let name = inventory.name.as_deref().unwrap_or("bpf-objects");
    let mut package = json!({ "type": "application", "bom-ref": "package", "name": name });
    if let Some(version) = &inventory.version {
        package["version"] = json!(version);
    }
    if let Some(source) = &inventory.source {
        package["externalReferences"] = json!([{ "type": "vcs", "url": source }]);
    }
    let objects: Vec<Value> = inventory.objects.iter().map(component).collect();
    let refs: Vec<&Value> = objects.iter().map(|object| &object["bom-ref"]).collect();
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": package },
        "components": objects,
        "dependencies": [{ "ref": "package", "dependsOn": refs }],
    })
}

/// An object is a file, its programs are what it consists of.
fn component(object: &Object) -> Value {
    let programs: Vec<Value> = object
        .programs
        .iter()
        .map(|program| part(object, program))
        .collect();
    let maps = object.maps.iter().map(|map| {
        let text = format!("{} {} {}", map.name, map.kind, map.max_entries);
        property("map", text)
    });
    let kernel = object.needs.oldest_kernel.iter();
    let kernel = kernel.map(|release| property("oldest-kernel", release.clone()));
    let properties: Vec<Value> = maps.chain(kernel).collect();
    let mut component = json!({
        "type": "file",
        "bom-ref": object.digest.to_string(),
        "name": object.name,
        "hashes": [{ "alg": "SHA-256", "content": object.digest.to_hex() }],
        "properties": properties,
        "components": programs,
    });
    if let Some(license) = &object.license {
        // The kernel's words ("Dual BSD/GPL") are names, not SPDX identifiers.
        component["licenses"] = json!([{ "license": { "name": license } }]);
    }
    component
}

fn part(object: &Object, program: &Program) -> Value {
    let calls = program.helpers.iter().chain(&program.kfuncs);
    let calls = calls.map(|call| property("call", call.clone()));
    let facts = [
        property("type", program.kind.clone()),
        property("section", program.section.clone()),
        property("instructions", program.total_insns.to_string()),
    ];
    json!({
        "type": "library",
        "bom-ref": format!("{}#{}", object.digest, program.name),
        "name": program.name,
        "properties": facts.into_iter().chain(calls).collect::<Vec<Value>>(),
    })
}

fn property(name: &str, value: String) -> Value {
    json!({ "name": format!("bpfseal:{name}"), "value": value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn an_inventory_is_a_bill_of_materials() {
        let elf = fixture::object("socket", "probe");
        let object = crate::inventory::read("probe.bpf.o", &elf).unwrap();
        let digest = object.digest;
        let inventory = Inventory {
            name: Some("probe".into()),
            version: Some("1.0".into()),
            source: Some("https://example.com/probe".into()),
            ..Inventory::of(vec![object])
        };
        let document = document(&inventory);
        assert_eq!(
            document["metadata"]["component"],
            json!({
                "type": "application", "bom-ref": "package", "name": "probe", "version": "1.0",
                "externalReferences": [{ "type": "vcs", "url": "https://example.com/probe" }],
            })
        );
        let component = &document["components"][0];
        assert_eq!(component["hashes"][0]["content"], digest.to_hex());
        assert_eq!(component["components"][0]["name"], "probe");
        assert_eq!(
            component["components"][0]["properties"][0],
            json!({ "name": "bpfseal:type", "value": "socket_filter" })
        );
        assert_eq!(document["dependencies"][0]["dependsOn"], json!([digest]));
    }
}
