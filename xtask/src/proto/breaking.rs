//! Finds what a changed proto takes away from peers and from users of the
//! stubs: nodes of an old and of a new version run side by side.

use std::{fmt, fs, path::Path};

use prost_build::Module;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use protox::prost::Message;

use super::{
    ProtoError,
    elements::{Element, Elements, First, Key, Kind},
    output,
    package::{self, Package},
};

/// An element that is no longer what was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Break {
    file: String,
    element: String,
    change: String,
    remedy: &'static str,
}

/// What `packages` break of the descriptors that are committed in `directory`.
pub(super) fn find(directory: &Path, packages: &[Package]) -> Result<Vec<Break>, ProtoError> {
    let before = Elements::of(&committed(directory)?);
    let after = Elements::of(packages.iter().flat_map(|package| &package.files));
    let elements = before.by_key.iter().filter_map(|(key, element)| {
        let now = after.by_key.get(key);
        if now.is_some_and(|now| now.declaration == element.declaration) {
            return None;
        }
        // The place that it stood in is gone, which is said already.
        if element.parent.as_ref().is_some_and(|parent| !after.by_key.contains_key(parent)) {
            return None;
        }
        Some(changed(key, element, now, &before, &after))
    });
    let mut breaks: Vec<Break> = elements.collect();
    breaks.extend(unreserved(&before, &after));
    breaks.extend(overtaken(&before, &after));
    breaks.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(breaks)
}

/// The files of every package whose descriptors are in `directory`.
fn committed(directory: &Path) -> Result<Vec<FileDescriptorProto>, ProtoError> {
    let mut files = Vec::new();
    for name in output::list(directory)? {
        let Some(stem) = name.strip_suffix(".bin") else { continue };
        let path = directory.join(&name);
        let bytes = fs::read(&path).map_err(output::access(&path))?;
        let set = FileDescriptorSet::decode(&*bytes)
            .map_err(|source| ProtoError::Descriptors { path, source })?;
        // The set holds imports too, which are compared in the set of their own package.
        files.extend(set.file.into_iter().filter(|file| {
            package::stem(&Module::from_protobuf_package_name(file.package())) == stem
        }));
    }
    Ok(files)
}

fn changed(
    key: &Key,
    before: &Element,
    now: Option<&Element>,
    all_before: &Elements,
    all_after: &Elements,
) -> Break {
    let parent = before.parent.as_ref();
    // Taken by another that was not there: the element has a new name.
    let renamed = before.number.zip(parent).and_then(|(number, parent)| {
        let (key, element) = all_after.numbered(key.kind, parent, number)?;
        (!all_before.by_key.contains_key(key)).then_some(element)
    });
    let remedy = match (now, renamed) {
        (Some(now), _) if now.number != before.number => "give it its number back",
        (Some(_), _) if key.kind == Kind::Package => "move its files back",
        (Some(_), _) => "leave it as it was and add another beside it",
        (None, Some(_)) => "give it its name back",
        (None, None) => key.kind.remedy(),
    };
    let now = now.or(renamed);
    let show = |element: &Element| shorten(&element.declaration, &key.package);
    let change = match now {
        Some(now) => format!("was `{}`, now `{}`", show(before), show(now)),
        None if before.declaration.is_empty() => "was there, now gone".to_owned(),
        None => format!("was `{}`, now gone", show(before)),
    };
    // A file that is no more has nothing to mend.
    let place = now.or_else(|| all_after.by_key.get(parent.filter(|it| it.kind != Kind::Package)?));
    let file = place.unwrap_or(before).file.clone();
    Break { file, element: key.to_string(), change, remedy }
}

/// Numbers that messages and enums still there no longer reserve.
fn unreserved(before: &Elements, after: &Elements) -> Vec<Break> {
    let mut breaks = Vec::new();
    for (key, ranges) in &before.reserved {
        let (Some(now), Some(element)) = (after.reserved.get(key), after.by_key.get(key)) else {
            continue;
        };
        for &(first, last) in ranges.iter().filter(|range| !covered(**range, now)) {
            let kind = if key.kind == Kind::Enum { Kind::Value } else { Kind::Field };
            let taken = after.by_key.values().find(|it| {
                it.parent.as_ref() == Some(key)
                    && it.number.is_some_and(|number| (first..=last).contains(&number))
            });
            let taken = taken.map_or_else(
                || "not all of it reserved".to_owned(),
                |it| format!("a {kind} `{}`", shorten(&it.declaration, &key.package)),
            );
            let range =
                if first == last { first.to_string() } else { format!("{first} to {last}") };
            breaks.push(Break {
                file: element.file.clone(),
                element: key.to_string(),
                change: format!("was `reserved {range}`, now {taken}"),
                remedy: Kind::ReservedName.remedy(),
            });
        }
    }
    breaks
}

/// Values that are still there and no longer the first where that counts.
fn overtaken(before: &Elements, after: &Elements) -> Vec<Break> {
    let mut breaks = Vec::new();
    for ((key, of), name) in &before.first {
        let Some(now) = after.first.get(&(key.clone(), *of)).filter(|now| *now != name) else {
            continue;
        };
        let value = Key { kind: Kind::Value, name: format!("{}.{name}", key.name), ..key.clone() };
        let Some(element) = after.by_key.get(&value) else { continue };
        let role = match of {
            First::OfNumber(number) if element.number == Some(*number) => {
                "the first with its number"
            }
            // It has another number, which is said already.
            First::OfNumber(_) => continue,
            First::OfEnum => "the default of its enum",
        };
        breaks.push(Break {
            file: element.file.clone(),
            element: value.to_string(),
            change: format!("was {role}, now `{now}` is"),
            remedy: "put it first again",
        });
    }
    breaks
}

/// Whether each number of a range is in one of `ranges`.
fn covered((first, last): (i32, i32), ranges: &[(i32, i32)]) -> bool {
    let mut ranges = ranges.to_vec();
    ranges.sort_unstable();
    let mut next = i64::from(first);
    for (start, end) in ranges {
        if i64::from(start) <= next {
            next = next.max(i64::from(end) + 1);
        }
    }
    i64::from(last) < next
}

/// A declaration with the types of its own package by their short names.
fn shorten(declaration: &str, package: &str) -> String {
    let mut text = declaration.replace(&format!(".{package}."), "");
    for before in [" ", "(", "<"] {
        text = text.replace(&format!("{before}."), before);
    }
    text.trim_start_matches('.').to_owned()
}

impl Kind {
    /// What to do where an element is gone.
    fn remedy(self) -> &'static str {
        match self {
            Self::Package => "keep it until no node serves or calls it",
            Self::Enum | Self::Message | Self::Service | Self::Extension => "keep it",
            Self::Field | Self::Value => "keep it, marked `[deprecated = true]`",
            Self::ReservedName => "reserve it again",
            Self::Rpc => "keep it: servers that do not implement it answer UNIMPLEMENTED",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Package => "package",
            Self::Enum => "enum",
            Self::Message => "message",
            Self::Service => "service",
            Self::Extension => "extension",
            Self::Field => "field",
            Self::ReservedName => "reserved name",
            Self::Rpc => "rpc",
            Self::Value => "value",
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind, self.name)
    }
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, element, change, remedy } = self;
        write!(f, "proto/{file}: {element}: {change}: {remedy}")
    }
}
