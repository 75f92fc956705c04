//! Compiles the proto files with protox (no protoc) into Rust types, the server, the client, and the descriptors that
//! reflection serves.

use std::path::PathBuf;
use std::{env, error::Error, fs};

use prost::Message;
use protox::prost_reflect::prost_types::{DescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};

const PACKAGE: &str = "reg4rec.v1";
const FILES: [&str; 1] = ["reg4rec/v1/recommendation.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let public = protox::compile(FILES, ["proto"])?;
    fs::write(out.join("reg4rec.v1.bin"), public.encode_to_vec())?;

    let mut local = public.clone();
    take_request_strings_as_bytes(&mut local);
    tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::wire::RequestCodec")
        .compile_fds(local.clone())?;

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
    const SENT: [&str; 6] =
        ["RecommendRequest", "RecommendBatchRequest", "Event", "Filter", "PriceRange", "DecodeOptions"];
    let files = set.file.iter_mut().filter(|file| file.package() == PACKAGE);
    for message in files.flat_map(|file| &mut file.message_type).filter(|message| SENT.contains(&message.name())) {
        strings_to_bytes(message);
    }
}

fn strings_to_bytes(message: &mut DescriptorProto) {
    if let Some(options) = &mut message.options {
        options.map_entry = None;
    }
    for field in message.field.iter_mut().filter(|field| field.r#type() == Type::String) {
        field.set_type(Type::Bytes);
    }
    message.nested_type.iter_mut().for_each(strings_to_bytes);
}
