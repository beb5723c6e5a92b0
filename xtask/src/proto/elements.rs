//! Flattens files into the elements that peers and users of the stubs rely on.

use std::{collections::BTreeMap, slice};

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    MethodDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

use super::{names, package};

/// What is declared, and its name within its package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) package: String,
    pub(super) kind: Kind,
    pub(super) name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Package,
    Enum,
    Message,
    Service,
    Extension,
    Field,
    ReservedName,
    Rpc,
    Value,
}

/// One declaration.
#[derive(Debug)]
pub(super) struct Element {
    pub(super) file: String,
    /// What it stands in; none for a package.
    pub(super) parent: Option<Key>,
    /// All of the declaration that a peer or a user of the stubs relies on, in
    /// words of a proto file with types by their full names.
    pub(super) declaration: String,
    pub(super) number: Option<i32>,
}

/// For what the first of some values counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum First {
    /// Aliases are one variant in Rust, which has its name.
    OfNumber(i32),
    /// An absent field has it, where it need not be 0.
    OfEnum,
}

/// The elements of some files, and the numbers that no element may take.
#[derive(Debug, Default)]
pub(super) struct Elements {
    pub(super) by_key: BTreeMap<Key, Element>,
    /// By message or enum; first and last number of each range.
    pub(super) reserved: BTreeMap<Key, Vec<(i32, i32)>>,
    /// By enum: the name that stands for a number, or for a field without one.
    pub(super) first: BTreeMap<(Key, First), String>,
}

impl Elements {
    #[expect(single_use_lifetimes, reason = "no name may be left out here, so far")]
    pub(super) fn of<'a>(files: impl IntoIterator<Item = &'a FileDescriptorProto>) -> Self {
        let mut elements = Self::default();
        for file in files {
            let package = Key {
                package: file.package().to_owned(),
                kind: Kind::Package,
                name: file.package().to_owned(),
            };
            let mut scope = Scope { file, parent: package.clone(), elements: &mut elements };
            scope.elements.by_key.entry(package).or_insert_with(|| Element {
                file: file.name().to_owned(),
                parent: None,
                declaration: place(file),
                number: None,
            });
            scope.file();
        }
        elements
    }

    /// The element of `kind` that stands in `parent` and has `number`.
    pub(super) fn numbered(
        &self,
        kind: Kind,
        parent: &Key,
        number: i32,
    ) -> Option<(&Key, &Element)> {
        self.by_key.iter().find(|(key, element)| {
            key.kind == kind
                && element.number == Some(number)
                && element.parent.as_ref() == Some(parent)
        })
    }
}

/// The place whose declarations are added.
struct Scope<'a> {
    file: &'a FileDescriptorProto,
    parent: Key,
    elements: &'a mut Elements,
}

impl Scope<'_> {
    fn file(&mut self) {
        let file = self.file;
        for message in &file.message_type {
            self.message(message);
        }
        for it in &file.enum_type {
            self.enumeration(it);
        }
        for extension in &file.extension {
            self.extension(extension);
        }
        for service in &file.service {
            let mut scope = self.add(Kind::Service, service.name(), String::new(), None);
            for method in &service.method {
                scope.add(Kind::Rpc, method.name(), rpc(method), None);
            }
        }
    }

    fn message(&mut self, message: &DescriptorProto) {
        // No one wrote the message of a map's entries; its field names both types.
        if names::is_entry(message) {
            return;
        }
        let proto3 = self.file.syntax() == "proto3";
        let mut scope = self.add(Kind::Message, message.name(), String::new(), None);
        for it in &message.field {
            let declaration = field(it, Some((&scope.full_name(), message)), proto3);
            scope.add(Kind::Field, it.name(), declaration, Some(it.number()));
        }
        for nested in &message.nested_type {
            scope.message(nested);
        }
        for it in &message.enum_type {
            scope.enumeration(it);
        }
        for extension in &message.extension {
            scope.extension(extension);
        }
        let ranges =
            message.reserved_range.iter().map(|it| (it.start(), it.end().saturating_sub(1)));
        scope.reserve(&message.reserved_name, ranges.collect());
    }

    fn enumeration(&mut self, it: &EnumDescriptorProto) {
        let proto3 = self.file.syntax() == "proto3";
        let mut scope = self.add(Kind::Enum, it.name(), String::new(), None);
        for value in &it.value {
            let declaration = format!("{} = {}", value.name(), value.number());
            scope.add(Kind::Value, value.name(), declaration, Some(value.number()));
            scope.first(First::OfNumber(value.number()), value.name());
            if !proto3 {
                scope.first(First::OfEnum, value.name());
            }
        }
        let ranges = it.reserved_range.iter().map(|it| (it.start(), it.end()));
        scope.reserve(&it.reserved_name, ranges.collect());
    }

    fn extension(&mut self, it: &FieldDescriptorProto) {
        let proto3 = self.file.syntax() == "proto3";
        let declaration = format!("extend {} {{ {} }}", it.extendee(), field(it, None, proto3));
        self.add(Kind::Extension, it.name(), declaration, None);
    }

    fn first(&mut self, of: First, name: &str) {
        let key = (self.parent.clone(), of);
        self.elements.first.entry(key).or_insert_with(|| name.to_owned());
    }

    /// The name of the place in all of protobuf, without the dot before it.
    fn full_name(&self) -> String {
        match &*self.parent.package {
            "" => self.parent.name.clone(),
            package => format!("{package}.{}", self.parent.name),
        }
    }

    fn reserve(&mut self, names: &[String], ranges: Vec<(i32, i32)>) {
        for name in names {
            self.add(Kind::ReservedName, name, format!("reserved \"{name}\""), None);
        }
        self.elements.reserved.insert(self.parent.clone(), ranges);
    }

    /// Adds an element and returns the place inside it.
    fn add(
        &mut self,
        kind: Kind,
        name: &str,
        declaration: String,
        number: Option<i32>,
    ) -> Scope<'_> {
        let name = match self.parent.kind {
            Kind::Package => name.to_owned(),
            _ => format!("{}.{name}", self.parent.name),
        };
        let key = Key { package: self.parent.package.clone(), kind, name };
        let element = Element {
            file: self.file.name().to_owned(),
            parent: Some(self.parent.clone()),
            declaration,
            number,
        };
        self.elements.by_key.insert(key.clone(), element);
        Scope { file: self.file, parent: key, elements: self.elements }
    }
}

/// A field as a proto file declares it, with the oneof that it is in.
fn field(
    field: &FieldDescriptorProto,
    message: Option<(&str, &DescriptorProto)>,
    proto3: bool,
) -> String {
    let entry = message.and_then(|(name, message)| names::map_entry(name, message, field));
    let oneof = names::in_oneof(field).and_then(|index| {
        let (_, message) = message?;
        Some((message, message.oneof_decl.get(index)?.name()))
    });
    let presence = match field.label() {
        _ if entry.is_some() => "",
        Label::Repeated => "repeated ",
        Label::Required => "required ",
        // A message can be absent whether it says so or not, and a member of a oneof too.
        Label::Optional if matches!(field.r#type(), Type::Message | Type::Group) => "",
        Label::Optional if oneof.is_some() => "",
        Label::Optional if field.proto3_optional() || !proto3 => "optional ",
        Label::Optional => "",
    };
    let kind = entry.map_or_else(
        || type_of(field),
        |entry| {
            let types: Vec<String> = entry.field.iter().map(type_of).collect();
            format!("map<{}>", types.join(", "))
        },
    );
    let default = field.default_value.as_ref().map(|value| format!(" [default = {value}]"));
    let oneof = oneof.map(|(message, oneof)| {
        let moved = names::oneof_type(message, oneof);
        let moved = if moved.ends_with("OneOf") { format!(" ({moved})") } else { String::new() };
        format!(" in oneof {oneof}{moved}")
    });
    format!(
        "{presence}{kind} {} = {}{}{}",
        field.name(),
        field.number(),
        default.unwrap_or_default(),
        oneof.unwrap_or_default(),
    )
}

/// Where users of the stubs find a package, if its name does not say that.
fn place(file: &FileDescriptorProto) -> String {
    if file.package() != package::ROOT {
        return String::new();
    }
    let path = package::path(file.package(), slice::from_ref(file)).unwrap_or_default();
    format!("aegis_proto::{}", path.join("::"))
}

fn type_of(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Enum | Type::Message => field.type_name().to_owned(),
        Type::Group => format!("group {}", field.type_name()),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

fn rpc(method: &MethodDescriptorProto) -> String {
    let stream = |streams: bool| if streams { "stream " } else { "" };
    format!(
        "rpc {}({}{}) returns ({}{})",
        method.name(),
        stream(method.client_streaming()),
        method.input_type(),
        stream(method.server_streaming()),
        method.output_type(),
    )
}
