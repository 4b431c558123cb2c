//! Pages for people: every repository, one repository, one version. Plain HTML, made here.

use std::fmt::Write as _;

use http::{Response, StatusCode, header};
use serde_json::Value;

use super::{Call, catalog, manifest, name_unknown, reply};
use crate::{
    admission,
    body::Body,
    digest::Digest,
    error::OciError,
    name::Repository,
    registry::Registry,
    route::{Page, Reference, ReferrerQuery},
};

/// Most rows of a table: the API has the rest.
const ROWS: u32 = 1000;

/// Largest inventory that is shown.
const LARGEST_INVENTORY: u64 = 4 << 20;

/// Scripts, frames and foreign content never: what is shown was pushed by strangers.
const CONTENT_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

/// Every repository that the caller may pull from.
pub async fn home(registry: &Registry, call: &Call) -> Result<Response<Body>, OciError> {
    let first = Page {
        limit: ROWS,
        after: None,
    };
    let names = catalog::readable(registry, call, &first).await?;
    let names: Vec<String> = serde_json::from_str(&names.json).map_err(OciError::internal)?;
    let mut body = String::from("<h1>Repositories</h1><ul>");
    for name in names {
        let name = escape(&name);
        let _ = write!(body, "<li><a href=\"/packages/{name}\">{name}</a></li>");
    }
    body.push_str("</ul>");
    Ok(html("bpfseal-registry", &body))
}

/// The tags of a repository.
pub async fn package(
    registry: &Registry,
    call: &Call,
    name: Repository,
) -> Result<Response<Body>, OciError> {
    if !registry.metadata.has_repository(&name).await? {
        return Err(name_unknown());
    }
    let tags = registry.metadata.tagged(&name, ROWS).await?;
    let repository = name;
    let name = escape(repository.as_str());
    let mut body = format!("<p><a href=\"/\">repositories</a></p><h1>{name}</h1>");
    body.push_str("<table><tr><th scope=col>tag<th scope=col>digest<th scope=col>pushed</tr>");
    for (tag, digest, pushed) in tags {
        let reference = tag.parse().map(Reference::Tag);
        let seen = match reference {
            Ok(reference) => manifest::seen(registry, call, repository.clone(), reference).await,
            Err(_) => continue,
        };
        if seen.is_err() {
            continue;
        }
        let tag = escape(&tag);
        let digest = escape(&digest);
        let pushed = time(pushed);
        let _ = write!(
            body,
            "<tr><td><a href=\"/packages/{name}:{tag}\">{tag}</a>\
             <td><a href=\"/packages/{name}@{digest}\"><code>{digest}</code></a><td>{pushed}</tr>"
        );
    }
    body.push_str("</table>");
    Ok(html(&name, &body))
}

/// One manifest: its tags, who signed it, what refers to it, what is in it.
pub async fn version(
    registry: &Registry,
    call: &Call,
    name: Repository,
    reference: Reference,
) -> Result<Response<Body>, OciError> {
    let found = manifest::seen(registry, call, name.clone(), reference.clone()).await?;
    let title = match &reference {
        Reference::Tag(tag) => format!("{name}:{tag}"),
        Reference::Digest(_) => name.to_string(),
    };
    let verdict = admission::verdict(registry, &call.site, &name, &found).await?;
    let tags = registry.metadata.tags_of(&name, &found.digest).await?;
    let all = ReferrerQuery {
        artifact_type: None,
        limit: ROWS,
        after: None,
    };
    let referrers = registry
        .metadata
        .referrers(&name, &found.digest, &all)
        .await?;
    let repository = escape(name.as_str());
    let mut body = format!(
        "<p><a href=\"/\">repositories</a> · <a href=\"/packages/{repository}\">{repository}</a></p>\
         <h1>{}</h1><p><code>{}</code></p><p>{}</p>",
        escape(&title),
        found.digest,
        escape(&found.media_type)
    );
    let tags: Vec<String> = tags.iter().map(|tag| escape(tag)).collect();
    let tags = if tags.is_empty() {
        "None.".to_owned()
    } else {
        tags.join(", ")
    };
    let _ = write!(body, "<h2>Tags</h2><p>{tags}</p>");
    body.push_str("<h2>Signers</h2>");
    match verdict {
        None => body.push_str("<p>No policy decides about this repository.</p>"),
        Some(verdict) => {
            let refusal = verdict.refusal.as_ref().map(|refusal| {
                let reason = refusal.reason;
                format!("E{} {}: {refusal}", reason.number(), reason.code())
            });
            let _ = write!(
                body,
                "<p>{}: {}</p>",
                verdict.state.as_str(),
                escape(&refusal.unwrap_or_else(|| verdict.signers.join(", ")))
            );
        }
    }
    body.push_str("<h2>Referrers</h2>");
    if referrers.descriptors.is_empty() {
        body.push_str("<p>None.</p>");
    } else {
        list_referrers(&repository, &referrers.descriptors, &mut body);
    }
    let content: Value = serde_json::from_slice(&found.content).unwrap_or_default();
    inventory(registry, &name, &content, &mut body).await?;
    parts(&content, &mut body);
    Ok(html(&title, &body))
}

/// What refers to a manifest.
fn list_referrers(repository: &str, descriptors: &[String], body: &mut String) {
    body.push_str("<table><tr><th scope=col>type<th scope=col>digest<th scope=col>bytes</tr>");
    for descriptor in descriptors {
        let descriptor: Value = serde_json::from_str(descriptor).unwrap_or_default();
        let text = |key: &str| escape(descriptor[key].as_str().unwrap_or("-"));
        let digest = text("digest");
        let _ = write!(
            body,
            "<tr><td>{}<td><a href=\"/packages/{repository}@{digest}\"><code>{digest}</code></a><td>{}</tr>",
            text("artifactType"),
            descriptor["size"]
        );
    }
    body.push_str("</table>");
}

/// Layers or members.
fn parts(content: &Value, body: &mut String) {
    body.push_str("<h2>Content</h2><table><tr><th scope=col>title<th scope=col>type<th scope=col>digest<th scope=col>bytes</tr>");
    let lists = ["layers", "manifests"].map(|key| content[key].as_array());
    for part in lists.into_iter().flatten().flatten() {
        let text = |value: &Value| escape(value.as_str().unwrap_or("-"));
        let _ = write!(
            body,
            "<tr><td>{}<td>{}<td><code>{}</code><td>{}</tr>",
            text(&part["annotations"]["org.opencontainers.image.title"]),
            text(&part["mediaType"]),
            text(&part["digest"]),
            part["size"].as_u64().unwrap_or(0)
        );
    }
    body.push_str("</table>");
}

/// The programs and maps of a bpfseal bundle, as its config records them.
async fn inventory(
    registry: &Registry,
    name: &Repository,
    content: &Value,
    body: &mut String,
) -> Result<(), OciError> {
    let config = &content["config"];
    if config["mediaType"] != bundle::media::INVENTORY {
        return Ok(());
    }
    let digest: Option<Digest> = config["digest"].as_str().and_then(|text| text.parse().ok());
    let Some(bytes) = super::blob::small(registry, name, digest, LARGEST_INVENTORY).await? else {
        return Ok(());
    };
    let inventory: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    body.push_str("<h2>Inventory</h2>");
    for object in inventory["objects"].as_array().into_iter().flatten() {
        let text = |value: &Value| match value {
            Value::String(text) => escape(text),
            Value::Null => "-".to_owned(),
            other => escape(&other.to_string()),
        };
        let _ = write!(
            body,
            "<h3>{}</h3><p>licence {}</p><table><tr><th scope=col>program<th scope=col>section<th scope=col>type<th scope=col>instructions</tr>",
            text(&object["name"]),
            text(&object["license"])
        );
        for program in object["programs"].as_array().into_iter().flatten() {
            let _ = write!(
                body,
                "<tr><td>{}<td>{}<td>{}<td>{}</tr>",
                text(&program["name"]),
                text(&program["section"]),
                text(&program["type"]),
                text(&program["insns"])
            );
        }
        body.push_str("</table>");
        if object["maps"].as_array().is_none_or(Vec::is_empty) {
            continue;
        }
        body.push_str("<table><tr><th scope=col>map<th scope=col>type<th scope=col>entries</tr>");
        for map in object["maps"].as_array().into_iter().flatten() {
            let _ = write!(
                body,
                "<tr><td>{}<td>{}<td>{}</tr>",
                text(&map["name"]),
                text(&map["type"]),
                text(&map["max_entries"])
            );
        }
        body.push_str("</table>");
    }
    Ok(())
}

fn html(title: &str, body: &str) -> Response<Body> {
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>\
         :root{{color-scheme:light dark}}\
         body{{font:16px/1.5 sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}}\
         table{{border-collapse:collapse;margin:0 0 1rem}}\
         td,th{{text-align:left;vertical-align:top;padding:.2rem 1rem .2rem 0;\
         border-bottom:1px solid #8884;overflow-wrap:anywhere}}\
         code{{font-size:.85em;overflow-wrap:anywhere}}</style>\
         <main>{body}</main></html>",
        escape(title)
    );
    reply(StatusCode::OK)
        .with(header::CONTENT_SECURITY_POLICY, CONTENT_POLICY)
        .with(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .json("text/html; charset=utf-8", page)
}

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "-".to_owned(), |time| time.to_string())
}

/// Text as HTML, also within a quoted attribute.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_is_text() {
        assert_eq!(escape("<script>\"'&"), "&lt;script&gt;&quot;&#39;&amp;");
    }
}
