//! Compiles the proto files with protox (no protoc) into Rust types, the server, the client, and the descriptors that
//! reflection serves.

use std::path::PathBuf;
use std::{env, error::Error, fs};

use prost::Message;
use protox::prost_reflect::prost_types::{
    DescriptorProto, FileDescriptorSet, field_descriptor_proto::Type, source_code_info::Location,
};

const PACKAGE: &str = "reg4rec.v1";
/// What callers may reach, and what reflection tells them of.
const PUBLIC: [&str; 3] = ["reg4rec/v1/recommendation.proto", "reg4rec/v1/events.proto", "reg4rec/v1/catalog.proto"];
/// What only the admin port serves.
const ADMIN: [&str; 1] = ["reg4rec/v1/admin.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("reg4rec.v1.bin"), protox::compile(PUBLIC, ["proto"])?.encode_to_vec())?;
    fs::write(out.join("reg4rec.v1.admin.bin"), protox::compile(ADMIN, ["proto"])?.encode_to_vec())?;

    let mut local = protox::compile(PUBLIC.into_iter().chain(ADMIN), ["proto"])?;
    take_request_strings_as_bytes(&mut local);
    // So that the codec knows which message it decodes.
    let mut named = tonic_prost_build::Config::new();
    named.enable_type_names();
    tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::wire::RequestCodec")
        .compile_fds_with_config(local.clone(), named)?;

    let client = out.join("client");
    fs::create_dir_all(&client)?;
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(format!(".{PACKAGE}"), "crate::wire::v1")
        .out_dir(client)
        .compile_fds(local)?;
    Ok(())
}

/// Turns the strings of everything that a client sends into bytes, in the Rust types only.
///
/// On the wire both are the same. prost refuses a whole message for one string that is not UTF-8, and names no field
/// by its index; taken as bytes, `wire::decode` checks each string itself and names every bad one. Maps become the
/// repeated entries that they are on the wire, since map keys cannot be bytes.
fn take_request_strings_as_bytes(set: &mut FileDescriptorSet) {
    const SENT: [&str; 19] = [
        "RecommendRequest",
        "RecommendBatchRequest",
        "Event",
        "Filter",
        "PriceRange",
        "DecodeOptions",
        "Steering",
        "CategoryWeight",
        "CategoryLimit",
        "Likeness",
        "RecordRequest",
        "UserEvent",
        "CatalogItem",
        "UpsertItemsRequest",
        "RemoveItemsRequest",
        "ItemEligibility",
        "SetEligibilityRequest",
        "GetItemRequest",
        "ListItemsRequest",
    ];
    for file in set.file.iter_mut().filter(|file| file.package() == PACKAGE) {
        let mut unplaced = Vec::new();
        for (at, message) in
            file.message_type.iter_mut().enumerate().filter(|(_, message)| SENT.contains(&message.name()))
        {
            strings_to_bytes(message, &[4, at as i32], &mut unplaced);
        }
        // prost-build looks up where every message and field stands, sorted by path; entries of maps stand nowhere.
        let places = &mut file.source_code_info.get_or_insert_default().location;
        places.extend(unplaced.into_iter().map(|path| Location { path, span: vec![0, 0, 0], ..Location::default() }));
        places.sort_by(|one, other| one.path.cmp(&other.path));
    }
}

/// `path` is the message's place in its file as descriptors count it: 3 is a nested message, 2 a field.
fn strings_to_bytes(message: &mut DescriptorProto, path: &[i32], unplaced: &mut Vec<Vec<i32>>) {
    let was_map = message.options.as_mut().and_then(|options| options.map_entry.take()).unwrap_or_default();
    if was_map {
        unplaced.push(path.to_vec());
        unplaced.extend((0..message.field.len()).map(|field| [path, &[2, field as i32]].concat()));
    }
    for field in message.field.iter_mut().filter(|field| field.r#type() == Type::String) {
        field.set_type(Type::Bytes);
    }
    for (at, nested) in message.nested_type.iter_mut().enumerate() {
        strings_to_bytes(nested, &[path, &[3, at as i32]].concat(), unplaced);
    }
}
