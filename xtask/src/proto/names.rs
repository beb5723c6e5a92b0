//! Finds proto names that become one name in Rust.

use std::collections::BTreeMap;

use heck::{ToSnakeCase, ToUpperCamelCase};
use prost_build::Module;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

use super::{ProtoError, package::Package};

/// What each generated client has already; `client.clone(..)` would find the
/// methods of the prelude's traits, which borrow less, before its own.
const CLIENT_METHODS: [&str; 11] = [
    "accept_compressed",
    "clone",
    "into",
    "max_decoding_message_size",
    "max_encoding_message_size",
    "new",
    "send_compressed",
    "to_owned",
    "try_into",
    "with_interceptor",
    "with_origin",
];

/// What the code of a generated client or server calls by its bare name.
const SERVICE_TYPES: [&str; 18] = [
    "Arc",
    "Body",
    "Box",
    "BoxFuture",
    "BoxStream",
    "Bytes",
    "Clone",
    "CompressionEncoding",
    "Context",
    "Default",
    "EnabledCompressionEncodings",
    "Err",
    "InterceptedService",
    "Into",
    "Ok",
    "Option",
    "Poll",
    "StdError",
];

/// The Rust name of a service whose name is `name` by the usual rules.
pub(super) fn service(name: String) -> String {
    if SERVICE_TYPES.contains(&name.as_str()) { format!("{name}_") } else { name }
}

/// The Rust name of an RPC whose name is `name` by the usual rules.
pub(super) fn method(name: String) -> String {
    if CLIENT_METHODS.contains(&name.as_str()) { format!("{name}_") } else { name }
}

/// Refuses elements of one scope that get one Rust name; rustc would, in code
/// that nobody wrote.
pub(super) fn check(packages: &[Package]) -> Result<(), ProtoError> {
    let mut refusals = Vec::new();
    for package in packages {
        let mut scope = Scope::default();
        for other in packages {
            if let Some(child) = child_module(&package.name, &other.name) {
                let element = format!("package `{}.{child}`", package.name);
                scope.add(child, "", element, &mut refusals);
            }
        }
        for file in &package.files {
            check_file(file, &mut scope, &mut refusals);
        }
    }
    refusals.dedup();
    if refusals.is_empty() { Ok(()) } else { Err(ProtoError::Refused { refusals }) }
}

/// The names of one place and what took them.
#[derive(Debug, Default)]
struct Scope(BTreeMap<String, String>);

impl Scope {
    fn add(&mut self, rust: String, file: &str, element: String, refusals: &mut Vec<String>) {
        if rust.trim_matches('_').is_empty() {
            refusals.push(format!(
                "proto/{file}: {element} has no letter or digit, of which Rust names are made: rename it"
            ));
            return;
        }
        match self.0.get(&rust) {
            Some(other) if *other != element => refusals.push(format!(
                "proto/{file}: {other} and {element} both become `{rust}` in Rust: rename one of them"
            )),
            _ => {
                self.0.insert(rust, element);
            }
        }
    }
}

fn check_file(file: &FileDescriptorProto, scope: &mut Scope, refusals: &mut Vec<String>) {
    let name = file.name();
    for message in &file.message_type {
        check_message(file, "", message, scope, refusals);
    }
    for it in &file.enum_type {
        check_enum(name, "", it, scope, refusals);
    }
    for service in &file.service {
        check_service(name, service, scope, refusals);
    }
}

fn check_message(
    source: &FileDescriptorProto,
    parent: &str,
    message: &DescriptorProto,
    scope: &mut Scope,
    refusals: &mut Vec<String>,
) {
    if is_entry(message) {
        return;
    }
    let file = source.name();
    let full = format!("{parent}{}", message.name());
    let rust = message.name().to_upper_camel_case();
    scope.add(rust, file, format!("message `{full}`"), refusals);

    let mut fields = Scope::default();
    for field in message.field.iter().filter(|field| in_oneof(field).is_none()) {
        let element = format!("field `{full}.{}`", field.name());
        fields.add(field.name().to_snake_case(), file, element, refusals);
    }

    check_accessors(source, &full, message, refusals);

    let mut inner = Scope::default();
    let parent = format!("{full}.");
    for nested in &message.nested_type {
        check_message(source, &parent, nested, &mut inner, refusals);
    }
    for it in &message.enum_type {
        check_enum(file, &parent, it, &mut inner, refusals);
    }
    for (index, oneof) in message.oneof_decl.iter().enumerate() {
        let members = message.field.iter().filter(|field| in_oneof(field) == Some(index));
        let mut variants = Scope::default();
        let mut empty = true;
        for field in members {
            empty = false;
            let element = format!("field `{full}.{}`", field.name());
            variants.add(field.name().to_upper_camel_case(), file, element, refusals);
        }
        if empty {
            continue;
        }
        let element = format!("oneof `{full}.{}`", oneof.name());
        fields.add(oneof.name().to_snake_case(), file, element.clone(), refusals);
        inner.add(oneof_type(message, oneof.name()), file, element, refusals);
    }
    if !inner.0.is_empty() {
        let module = message.name().to_snake_case();
        scope.add(module, file, format!("the types in message `{full}`"), refusals);
    }
}

/// Looks at the methods that a message gets beside its fields.
fn check_accessors(
    file: &FileDescriptorProto,
    full: &str,
    message: &DescriptorProto,
    refusals: &mut Vec<String>,
) {
    let parent = match file.package() {
        "" => full.to_owned(),
        package => format!("{package}.{full}"),
    };
    let mut methods = Scope::default();
    for field in message.field.iter().filter(|field| in_oneof(field).is_none()) {
        let element = format!("field `{full}.{}`", field.name());
        let name = field.name().to_snake_case();
        let entry = map_entry(&parent, message, field);
        let value = entry.map_or(Some(field), |entry| entry.field.get(1));
        let names = match (field.label(), value.map(FieldDescriptorProto::r#type)) {
            (_, Some(Type::Enum)) if entry.is_some() => {
                if Module::from_protobuf_package_name(&name).to_string() != name {
                    refusals.push(format!(
                        "proto/{}: {element} is a map of enums with a name that Rust keeps for itself, \
                         of which the generator makes no method: rename it",
                        file.name(),
                    ));
                }
                vec![format!("get_{name}"), format!("insert_{name}")]
            }
            (Label::Repeated, Some(Type::Enum)) => vec![format!("push_{name}"), name],
            (_, Some(Type::Enum)) => vec![format!("set_{name}"), name],
            (_, Some(Type::Message | Type::Group)) => continue,
            // What may be absent has a method that gives its default.
            (Label::Optional, _) if field.proto3_optional() || file.syntax() != "proto3" => {
                vec![name]
            }
            _ => continue,
        };
        for name in names {
            methods.add(name, file.name(), element.clone(), refusals);
        }
    }
}

fn check_enum(
    file: &str,
    parent: &str,
    it: &EnumDescriptorProto,
    scope: &mut Scope,
    refusals: &mut Vec<String>,
) {
    let full = format!("{parent}{}", it.name());
    let rust = it.name().to_upper_camel_case();
    scope.add(rust.clone(), file, format!("enum `{full}`"), refusals);

    let mut variants = Scope::default();
    let mut numbers = Vec::new();
    for value in &it.value {
        // The generator makes one variant of aliases.
        if numbers.contains(&value.number()) {
            continue;
        }
        numbers.push(value.number());
        let name = value.name().to_upper_camel_case();
        let variant = name
            .strip_prefix(&rust)
            .filter(|rest| rest.starts_with(char::is_uppercase))
            .unwrap_or(&name);
        variants.add(
            variant.to_owned(),
            file,
            format!("value `{full}.{}`", value.name()),
            refusals,
        );
    }
}

fn check_service(
    file: &str,
    service: &ServiceDescriptorProto,
    scope: &mut Scope,
    refusals: &mut Vec<String>,
) {
    let element = format!("service `{}`", service.name());
    let camel = service.name().to_upper_camel_case();
    let moved = if self::service(camel.clone()) == camel { "" } else { "_" };
    let module = service.name().to_snake_case();
    if module.is_empty() {
        scope.add(module, file, element, refusals);
    } else {
        for role in ["client", "server"] {
            scope.add(format!("{module}{moved}_{role}"), file, element.clone(), refusals);
        }
    }
    let mut methods = Scope::default();
    for rpc in &service.method {
        let element = format!("rpc `{}.{}`", service.name(), rpc.name());
        methods.add(method(rpc.name().to_snake_case()), file, element, refusals);
    }
}

/// The message of the entries of `field`, if that is a map; `parent` is the
/// full name of its message.
pub(super) fn map_entry<'a>(
    parent: &str,
    message: &'a DescriptorProto,
    field: &FieldDescriptorProto,
) -> Option<&'a DescriptorProto> {
    let name = field.type_name().strip_prefix('.')?.strip_prefix(parent)?.strip_prefix('.')?;
    message.nested_type.iter().find(|nested| is_entry(nested) && nested.name() == name)
}

/// What the type of a oneof is called in Rust: the generator moves out of the
/// way of nested types by itself.
pub(super) fn oneof_type(message: &DescriptorProto, oneof: &str) -> String {
    let rust = oneof.to_upper_camel_case();
    let messages = message.nested_type.iter().map(DescriptorProto::name);
    let mut nested = messages.chain(message.enum_type.iter().map(EnumDescriptorProto::name));
    let taken = nested.any(|nested| nested.to_upper_camel_case() == rust);
    if taken { rust + "OneOf" } else { rust }
}

/// Whether no one wrote this message: the entries of a map are such.
pub(super) fn is_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry)
}

/// The oneof that a field is in, if a person wrote it: `optional` makes one too.
pub(super) fn in_oneof(field: &FieldDescriptorProto) -> Option<usize> {
    let index = field.oneof_index.filter(|_| !field.proto3_optional())?;
    usize::try_from(index).ok()
}

/// The module of package `other` inside that of `package`, if it lies there.
fn child_module(package: &str, other: &str) -> Option<String> {
    let rest = other.strip_prefix(package)?.strip_prefix('.')?;
    rest.split('.').next().map(ToSnakeCase::to_snake_case)
}
