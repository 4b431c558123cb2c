//! `WWW-Authenticate` (RFC 9110 section 11.6.1): what a registry wants to be shown.

/// One way to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password.
    Basic,
    /// A token from somewhere else.
    Bearer {
        /// Where to get it.
        realm: String,
        /// For whom.
        service: Option<String>,
        /// Which right the registry found missing.
        scope: Option<String>,
    },
}

/// Reads every challenge that we can answer, in order, from all header lines.
pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    lines.into_iter().flat_map(parse_line).collect()
}

fn parse_line(line: &str) -> Vec<Challenge> {
    let mut schemes: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for item in split_outside_quotes(line) {
        let (scheme, parameter) = match item.split_once(char::is_whitespace) {
            Some((scheme, rest)) if !scheme.contains('=') => (Some(scheme), rest.trim()),
            _ if item.contains('=') => (None, item),
            _ => (Some(item), ""),
        };
        if let Some(scheme) = scheme {
            schemes.push((scheme.to_ascii_lowercase(), Vec::new()));
        }
        let Some((_, parameters)) = schemes.last_mut() else {
            continue;
        };
        if let Some((name, value)) = parameter.split_once('=') {
            parameters.push((name.trim().to_ascii_lowercase(), unquote(value.trim())));
        }
    }
    schemes.into_iter().filter_map(challenge).collect()
}

fn challenge((scheme, parameters): (String, Vec<(String, String)>)) -> Option<Challenge> {
    let parameter = |name: &str| {
        parameters
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.clone())
    };
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: parameter("realm")?,
            service: parameter("service"),
            scope: parameter("scope"),
        }),
        _ => None,
    }
}

/// Splits at commas that are not in a quoted string.
fn split_outside_quotes(line: &str) -> Vec<&str> {
    let (mut quoted, mut escaped, mut start) = (false, false, 0);
    let mut items = Vec::new();
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                items.push(line[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(line[start..].trim());
    items.retain(|item| !item.is_empty());
    items
}

fn unquote(value: &str) -> String {
    let Some(inner) = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    else {
        return value.to_owned();
    };
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(c) = characters.next() {
        plain.push(if c == '\\' {
            characters.next().unwrap_or('\\')
        } else {
            c
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn reads_what_registries_send() {
        for (lines, want) in [
            (
                vec![
                    r#"Bearer realm="https://a.io/t",service="r.io",scope="repository:a/b:pull,push""#,
                ],
                vec![bearer(
                    "https://a.io/t",
                    Some("r.io"),
                    Some("repository:a/b:pull,push"),
                )],
            ),
            (vec![r#"Basic realm="x""#], vec![Challenge::Basic]),
            (vec!["Basic"], vec![Challenge::Basic]),
            (
                vec![r#"bearer realm=https://a.io/t, Basic realm="a, \"b\"""#],
                vec![bearer("https://a.io/t", None, None), Challenge::Basic],
            ),
            (
                vec!["Negotiate abc==", "BASIC realm=x"],
                vec![Challenge::Basic],
            ),
            (vec!["Bearer service=x"], vec![]),
            (vec!["", ",,", "realm=x", "\"", "=", "Bearer"], vec![]),
        ] {
            assert_eq!(parse(lines.clone()), want, "{lines:?}");
        }
    }
}
