//! Reads `[kernel_keyring.NAME]`.

use super::{
    fault::Faults,
    reader::{Keys, Table},
    trust::entries,
};
use crate::{
    kernel_keyring::{Keyring, TrustedKeyring},
    spelling::did_you_mean,
};

pub(super) const KEYRING: Keys = Keys {
    known: &["keyring"],
    later: &[],
};

pub(super) fn read(
    text: &str,
    file: &Table<'_, '_>,
    faults: &mut Faults<'_>,
) -> Vec<TrustedKeyring> {
    let mut keyrings = Vec::new();
    for (name, line, value) in entries(text, file, "kernel_keyring", faults) {
        let Some(table) = Table::open("kernel_keyring", value, &KEYRING, faults) else {
            continue;
        };
        let Some(word) = table.string("keyring", faults) else {
            if table.value("keyring").is_none() {
                faults.add(table.span(), "a kernel keyring needs `keyring`");
            }
            continue;
        };
        let words = Keyring::ALL.map(Keyring::word);
        match Keyring::ALL
            .into_iter()
            .find(|ring| ring.word() == word.value)
        {
            Some(keyring) => keyrings.push(TrustedKeyring {
                name,
                line,
                keyring,
            }),
            None => {
                let hint = did_you_mean(word.value, words);
                let message = format!(
                    "`keyring` must be \"builtin\", \"secondary\" or \"platform\"; got {:?}{hint}",
                    word.value
                );
                faults.add(word.span, message);
            }
        }
    }
    keyrings
}
