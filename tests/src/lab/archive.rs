//! Writes the `newc` form of cpio, which the kernel unpacks as its first root file system.
//!
//! Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.

use std::io::{self, Write};

/// File type bits of a mode, as in `stat(2)`.
pub const DIRECTORY: u32 = 0o040_000;
/// A regular file.
pub const REGULAR: u32 = 0o100_000;
/// A symbolic link; its content is the target.
pub const LINK: u32 = 0o120_000;

/// An archive being written.
pub struct Archive<W> {
    out: W,
    inode: u32,
    written: u64,
}

impl<W: Write> Archive<W> {
    /// An archive with nothing in it yet.
    pub fn new(out: W) -> Self {
        Self {
            out,
            inode: 0,
            written: 0,
        }
    }

    /// Appends one entry; `path` has no leading slash.
    pub fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name_size = u32::try_from(path.len() + 1).map_err(io::Error::other)?;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let fields = [
            self.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0,
        ];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.put(header.as_bytes())?;
        self.put(path.as_bytes())?;
        self.put(&[0])?;
        self.align()?;
        self.put(content)?;
        self.align()
    }

    /// Writes the trailer and hands back the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    // Names and contents start at multiples of four.
    fn align(&mut self) -> io::Result<()> {
        let rest = self.written % 4;
        if rest == 0 {
            return Ok(());
        }
        let padding = [0; 3];
        self.put(&padding[..4 - rest as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_header_name_and_padded_content() {
        let mut archive = Archive::new(Vec::new());
        archive.entry("a", REGULAR | 0o644, b"xyz").unwrap();
        let bytes = archive.finish().unwrap();
        let first = "070701\
            00000001000081a400000000000000000000000100000000\
            0000000300000000000000000000000000000000\
            0000000200000000a\0xyz\0";
        assert_eq!(
            String::from_utf8(bytes[..first.len()].to_vec()).unwrap(),
            first
        );
        assert_eq!(bytes.len() % 4, 0);
    }
}
