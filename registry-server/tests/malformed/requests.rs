//! A seeded generator of requests that no honest client sends.

use crate::common::{IMAGE, INDEX, Server, image, sha256};

/// What is sent on one connection.
pub struct Request {
    pub bytes: Vec<u8>,
    /// The head promises more than there is: whoever sends it hangs up.
    pub ends_early: bool,
}

/// What is there to be asked for.
pub struct Target {
    /// Open descriptors before the first.
    pub files: usize,
    blob: String,
    manifest: String,
    upload: String,
}

const NAMES: &[&str] = &[
    "a",
    "A",
    "..",
    ".",
    "a/..",
    "a//b",
    "%2e%2e",
    "a%00",
    "%ff",
    "%",
    "%zz",
    "a%2fb",
    "-",
    "a b",
    "\u{e9}",
    "_catalog",
    "blobs",
    "manifests",
    "a/blobs/uploads",
    "token",
    "con",
    "a\\b",
    "a?",
];
const NOUNS: &[&str] = &[
    "tags/list",
    "tags",
    "manifests/v1",
    "manifests",
    "blobs",
    "blobs/uploads",
    "blobs/uploads/",
    "referrers",
    "blobs/uploads/00000000-0000-4000-8000-000000000000",
    "blobs/uploads/x",
    "x",
    "",
];
const DIGESTS: &[&str] = &[
    "sha256",
    "sha256:",
    ":",
    "sha256:00",
    "md5:d41d8cd98f00b204e9800998ecf8427e",
    "sha512:00",
    "sha256%3a00",
    "SHA256:00",
    "sha256:..",
    "sha256:%00",
    "sha-256:0",
    "sha256:+",
    "blake3:00",
];
const QUERIES: &[&str] = &[
    "n=-1",
    "n=0",
    "n=18446744073709551616",
    "n=1e9",
    "n=",
    "last=%ff",
    "last=%00",
    "last=",
    "digest=",
    "digest=x",
    "mount=",
    "from=..",
    "tag=",
    "tag=%2e%2e",
    "artifactType=%c0%80",
    "=",
    "&&&",
    "%",
    "n=1&n=2",
    "digest-algorithm=sha3",
    "%6e=1",
    "n=%31",
    "last=a%0d%0aX:%20y",
];
const RANGES: &[&str] = &[
    "bytes=",
    "bytes=-",
    "bytes=5-1",
    "bytes=99-",
    "bytes=0-0,1-1",
    "bytes=-0",
    "items=0-1",
    "bytes=18446744073709551615-",
    "bytes=0-99999999999999999999",
    "bytes=a-b",
    "bytes = 0 - 1",
    "0-1",
    "1-0",
    "-1",
    "0-18446744073709551615",
    "bytes 0-1/2",
    "9-9",
    "x",
    "",
];
const HEADERS: &[&str] = &[
    "content-type",
    "accept",
    "authorization",
    "if-match",
    "if-none-match",
    "range",
    "expect",
    "content-range",
    "upgrade",
    "cookie",
    "x-forwarded-for",
    "te",
    "trailer",
    "content-encoding",
];
const METHODS: &[&str] = &[
    "GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "CONNECT", "BREW", "get", "G\u{1}",
];

impl Target {
    pub fn new(server: &Server) -> Self {
        let mut client = server.client();
        let manifest = client.push_image("a", "v1", b"layer");
        let upload = client.start_upload("a");
        let files = server.usage().1;
        Self {
            files,
            blob: sha256(b"layer"),
            manifest,
            upload,
        }
    }

    pub fn request(&self, chance: &mut Chance) -> Request {
        let method = *chance.pick(METHODS);
        match chance.below(12) {
            0 => {
                let mut path = String::from("/v2");
                for _ in 0..chance.below(4) + 1 {
                    path += &format!("/{}", chance.pick(NAMES));
                }
                whole(method, &format!("{path}/{}", chance.pick(NOUNS)), "", b"")
            }
            1 => {
                let noun = *chance.pick(&["blobs", "manifests", "referrers"]);
                let digest = match chance.below(3) {
                    0 => format!("sha256:{}", chance.text(b"0123456789abcdefg", 70)),
                    _ => (*chance.pick(DIGESTS)).to_owned(),
                };
                whole(method, &format!("/v2/a/{noun}/{digest}"), "", b"x")
            }
            2 => {
                // To delete the manifest is no mistake, whatever the query.
                let method = if method == "DELETE" { "GET" } else { method };
                let manifest = format!("a/manifests/{}", self.manifest);
                let paths = ["_catalog", "a/tags/list", "a/blobs/uploads/", &manifest];
                let path = chance.pick(&paths).to_owned();
                let many = chance.below(40) + 1;
                let query: Vec<_> = (0..many).map(|_| *chance.pick(QUERIES)).collect();
                whole(method, &format!("/v2/{path}?{}", query.join("&")), "", b"")
            }
            3 => {
                let range = format!("range: {}\r\n", chance.pick(RANGES));
                let times = chance.below(3) + 1;
                let path = format!("/v2/a/blobs/{}", self.blob);
                whole("GET", &path, &range.repeat(times), b"")
            }
            4 => {
                let range = format!("content-range: {}\r\n", chance.pick(RANGES));
                let path = match chance.below(3) {
                    0 => format!("{}?digest={}", self.upload, chance.pick(DIGESTS)),
                    _ => self.upload.clone(),
                };
                {
                    let method = *chance.pick(&["PATCH", "PUT"]);
                    whole(method, &path, &range, b"xyz")
                }
            }
            5 => {
                let name = *chance.pick(HEADERS);
                let value = match chance.below(4) {
                    0 => "a".repeat(chance.below(40_000)),
                    1 => chance.text(b"\"*,;=/ \t\xc3\xa9W", 60),
                    2 => "%s%n${jndi:x}'--".to_owned(),
                    _ => (*chance.pick(RANGES)).to_owned(),
                };
                let times = if value.len() < 100 {
                    chance.below(150) + 1
                } else {
                    1
                };
                let lines = format!("{name}: {value}\r\n").repeat(times);
                whole(
                    "GET",
                    &format!("/v2/a/manifests/{}", self.manifest),
                    &lines,
                    b"",
                )
            }
            6 | 7 => {
                let (body, kind) = (self.document(chance), chance.below(3));
                let kind = match kind {
                    0 => format!("content-type: {IMAGE}\r\n"),
                    1 => format!("content-type: {}\r\n", INDEX),
                    _ => String::new(),
                };
                let tag = chance.text(b"abc.-_/", 20);
                whole("PUT", &format!("/v2/a/manifests/{tag}x"), &kind, &body)
            }
            8 => {
                let chunk = *chance.pick(&[
                    "3\r\nabc\r\n0\r\n\r\n",
                    "x\r\n\r\n",
                    "-1\r\n\r\n",
                    "ffffffffffffffff\r\nabc",
                    "fffffffffffffffff\r\nabc",
                    "3\r\nabcd\r\n0\r\n\r\n",
                    "3;a=b\r\nabc\r\n0\r\n\r\n",
                    "0\r\nx: y\r\n\r\n",
                    "3 \r\nabc\r\n",
                    "\r\n\r\n",
                    "3\nabc\n0\n\n",
                ]);
                let extra =
                    *chance.pick(&["", "content-length: 3\r\n", "transfer-encoding: gzip\r\n"]);
                let line = *chance.pick(&[
                    "POST /v2/a/blobs/uploads/?digest=x",
                    "PUT /v2/a/manifests/y",
                ]);
                let text = format!(
                    "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{extra}transfer-encoding: chunked\r\n\r\n{chunk}"
                );
                half(text.into_bytes())
            }
            9 => {
                let length =
                    *chance.pick(&["-1", "x", "", "1, 2", "18446744073709551616", "+3", "0x3"]);
                let text = format!(
                    "PUT {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\nabc",
                    self.upload
                );
                half(text.into_bytes())
            }
            10 => {
                let promised = chance.below(1 << 30) + 10;
                let path = *chance.pick(&[
                    "/v2/a/manifests/y",
                    "/v2/a/blobs/uploads/?digest=sha256:00",
                    "/token",
                ]);
                let text = format!(
                    "{} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {promised}\r\n\r\n{}",
                    chance.pick(&["PUT", "POST", "PATCH"]),
                    "{".repeat(chance.below(5_000))
                );
                half(text.into_bytes())
            }
            _ => {
                let valid = whole(
                    "PUT",
                    "/v2/a/manifests/y",
                    "",
                    image(&[b"absent"], None).as_bytes(),
                );
                let mut bytes = valid.bytes;
                for _ in 0..chance.below(6) + 1 {
                    let at = chance.below(bytes.len());
                    bytes[at] = chance.below(256) as u8;
                }
                bytes.truncate(bytes.len() - chance.below(40));
                half(bytes)
            }
        }
    }

    /// A manifest that is none.
    fn document(&self, chance: &mut Chance) -> Vec<u8> {
        let good = image(&[b"layer"], None);
        let odd = *chance.pick(&[
            "-1",
            "1e400",
            "0.5",
            "9223372036854775808",
            "null",
            "\"x\"",
            "[]",
            "{}",
            "true",
            "\"\\ud800\"",
            "99999999999999999999999",
        ]);
        let open = chance.pick(&["[", "{\"a\":", "[{\"layers\":"]).to_owned();
        match chance.below(9) {
            0 => good.replace(":5}", &format!(":{odd}}}")).into_bytes(),
            1 => good.replace(":2}", &format!(":{odd}}}")).into_bytes(),
            2 => good
                .replace("\"layers\":[", &format!("\"layers\":[{odd},"))
                .into_bytes(),
            3 => open.repeat(chance.below(30_000) + 1).into_bytes(),
            4 => {
                // Claims to expand to more than any disk holds.
                let layer = format!(
                    "{{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"{}\",\"size\":{}}},",
                    self.blob,
                    u64::MAX >> 1
                );
                let layers = layer.repeat(chance.below(2_000) + 1);
                good.replace("\"layers\":[", &format!("\"layers\":[{layers}"))
                    .into_bytes()
            }
            5 => {
                let mut bytes = good.into_bytes();
                let at = chance.below(bytes.len());
                bytes[at] = 0xc0 | chance.below(64) as u8;
                bytes
            }
            6 => {
                let note = format!("\"{}\":{odd},", "k".repeat(chance.below(200)));
                let notes = note.repeat(chance.below(5_000) + 1);
                good.replace(
                    "{\"config\"",
                    &format!("{{\"annotations\":{{{notes}\"z\":1}},\"config\""),
                )
                .into_bytes()
            }
            7 => good.as_bytes()[..chance.below(good.len())].to_vec(),
            _ => {
                let subject = format!("\"subject\":{{\"digest\":{odd},\"size\":{odd}}},\"config\"");
                good.replace("\"config\"", &subject).into_bytes()
            }
        }
    }
}

/// A request whose framing is right, so that it has to be answered.
fn whole(method: &str, path: &str, headers: &str, body: &[u8]) -> Request {
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    Request {
        bytes,
        ends_early: false,
    }
}

fn half(bytes: Vec<u8>) -> Request {
    Request {
        bytes,
        ends_early: true,
    }
}

/// The same numbers in each run (splitmix64).
pub struct Chance(pub u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// Up to `most` characters of an alphabet.
    pub fn text(&mut self, alphabet: &[u8], most: usize) -> String {
        let length = self.below(most);
        let bytes: Vec<u8> = (0..length).map(|_| *self.pick(alphabet)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
