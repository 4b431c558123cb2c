//! Another kernel's BTF, taken out of its image: before the reboot one wants to know what will
//! load after it.

use std::{
    io::{self, Write as _},
    process::{Command, Stdio},
    thread,
};

/// The BTF in a kernel's image: raw BTF, an ELF (`vmlinux`) or an x86 boot image (`bzImage`,
/// `/boot/vmlinuz-*`), which is unpacked by the program for its compression.
pub fn btf_of(image: &[u8]) -> Result<Vec<u8>, String> {
    if image.starts_with(&BTF_MAGIC) {
        return Ok(image.to_vec());
    }
    if image.starts_with(ELF_MAGIC) {
        return section(image, ".BTF")
            .map(<[u8]>::to_vec)
            .ok_or_else(|| "the kernel has no .BTF section (CONFIG_DEBUG_INFO_BTF)".to_owned());
    }
    let payload = payload(image).ok_or("it is neither BTF, nor ELF, nor an x86 boot image")?;
    let (program, arguments, trailer) = PACKERS
        .iter()
        .find(|(magic, ..)| payload.starts_with(magic))
        .map(|(_, program, arguments, trailer)| (program, arguments, trailer))
        .ok_or("its compression is unknown")?;
    // The kernel's build puts the unpacked size behind what has none of its own.
    let packed = &payload[..payload.len().saturating_sub(*trailer)];
    let kernel = unpack(program, arguments, packed).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("the program {program} is needed to unpack it"),
        _ => format!("{program}: {error}"),
    })?;
    if !kernel.starts_with(ELF_MAGIC) {
        return Err(format!("{program} did not find a kernel in it"));
    }
    btf_of(&kernel)
}

/// `Documentation/arch/x86/boot.rst`: the compressed kernel in a boot image.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let u32_at = |at: usize| {
        let bytes = image.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let sectors = match image.get(0x1f1)? {
        0 => 4,
        count => usize::from(*count),
    };
    let start = (sectors + 1) * 512 + u32_at(0x248)?;
    image.get(start..start.checked_add(u32_at(0x24c)?)?)
}

fn unpack(program: &str, arguments: &[&str], packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let input = child.stdin.take();
    let packed = packed.to_vec();
    let feeding = thread::spawn(move || {
        // A child that does not read to the end says so by its status.
        input.map(|mut input| input.write_all(&packed))
    });
    let output = child.wait_with_output()?;
    let _ = feeding.join();
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(
        said.lines().next().unwrap_or_default().to_owned(),
    ))
}

/// A section of a 64-bit little-endian ELF file.
fn section<'a>(elf: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let number = |at: usize, size: usize| {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(elf.get(at..at.checked_add(size)?)?);
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    let (table, entry, count) = (number(0x28, 8)?, number(0x3a, 2)?, number(0x3c, 2)?);
    let header = |index: usize| table.checked_add(index.checked_mul(entry)?);
    let content = |index: usize| {
        let at = header(index)?;
        let (start, size) = (
            number(at.checked_add(0x18)?, 8)?,
            number(at.checked_add(0x20)?, 8)?,
        );
        elf.get(start..start.checked_add(size)?)
    };
    let names = content(number(0x3e, 2)?)?;
    (0..count).find_map(|index| {
        let at = number(header(index)?, 4)?;
        let is_it = names.get(at..)?.strip_prefix(name.as_bytes())?.first() == Some(&0);
        is_it.then(|| content(index)).flatten()
    })
}

const ELF_MAGIC: &[u8] = b"\x7fELF";
const BTF_MAGIC: [u8; 2] = [0x9f, 0xeb];

/// First bytes, program, its arguments, bytes behind the compressed ones.
type Packer = (&'static [u8], &'static str, &'static [&'static str], usize);
const PACKERS: &[Packer] = &[
    (b"\x1f\x8b", "gzip", &["-dc"], 0),
    (b"\x28\xb5\x2f\xfd", "zstd", &["-dcq"], 4),
    (b"\x02\x21\x4c\x18", "lz4", &["-dcq"], 4),
    (b"\xfd7zXZ", "xz", &["-dcq", "--single-stream"], 4),
    (b"BZh", "bzip2", &["-dcq"], 4),
];

#[cfg(test)]
mod tests {
    use super::*;

    const BTF: &[u8] = b"\x9f\xeb\x01\x00 and so on";

    /// An ELF with two sections: `.BTF` and its names.
    fn elf() -> Vec<u8> {
        let names = b"\0.BTF.ids\0.BTF\0";
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(64, 0);
        let (btf_at, names_at) = (64, 64 + BTF.len());
        elf.extend(BTF);
        elf.extend(names);
        let table = elf.len();
        for (name, start, size) in [
            (1, btf_at, 1),
            (10, btf_at, BTF.len()),
            (0, names_at, names.len()),
        ] {
            let mut header = vec![0; 64];
            header[..4].copy_from_slice(&(name as u32).to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(start as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(size as u64).to_le_bytes());
            elf.extend(header);
        }
        elf[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        elf[0x3a] = 64;
        elf[0x3c] = 3;
        elf[0x3e] = 2;
        elf
    }

    /// A boot image around a payload.
    fn boot_image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 3 * 512 + 16];
        image[0x1f1] = 2;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248] = 16;
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend(payload);
        image.extend(b"behind");
        image
    }

    #[test]
    fn btf_is_found_in_each_form_of_a_kernel() {
        let gzip = Command::new("gzip").arg("--version").output();
        let pack = |bytes: &[u8]| unpack("gzip", &["-c"], bytes).unwrap();
        assert_eq!(btf_of(BTF).unwrap(), BTF);
        assert_eq!(btf_of(&elf()).unwrap(), BTF);
        if gzip.is_err() {
            println!("SKIPPED a boot image: there is no gzip");
            return;
        }
        assert_eq!(btf_of(&boot_image(&pack(&elf()))).unwrap(), BTF);
        let nonsense = boot_image(&pack(b"nonsense"));
        assert_eq!(
            btf_of(&nonsense).unwrap_err(),
            "gzip did not find a kernel in it"
        );
    }

    #[test]
    fn what_is_no_kernel_is_refused_and_never_panics() {
        for (image, want) in [
            (
                b"nonsense".to_vec(),
                "it is neither BTF, nor ELF, nor an x86 boot image",
            ),
            (boot_image(b"nonsense"), "its compression is unknown"),
            (
                b"\x7fELF".to_vec(),
                "the kernel has no .BTF section (CONFIG_DEBUG_INFO_BTF)",
            ),
        ] {
            assert_eq!(btf_of(&image).unwrap_err(), want);
        }
        let whole = elf();
        for at in 0..whole.len() {
            let _ = btf_of(&whole[..at]);
            let mut changed = whole.clone();
            changed[at] = 0xff;
            let _ = btf_of(&changed);
        }
    }
}
