//! Requests that are no protobuf at all are the caller's fault: INVALID_ARGUMENT, where tonic says INTERNAL. So are those
//! whose lists would take more memory than a request may; they are not decoded.

use std::marker::PhantomData;

use bytes::Buf;
use prost::{Message, Name};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use crate::domain::{Failure, Violation};

use super::bulk::{Bulky, Excess};
use super::status;

/// The codec of the server: encodes answers `T`, decodes requests `U`.
#[derive(Debug)]
pub struct RequestCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for RequestCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Message + Name + Default + Send + 'static> Codec for RequestCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = RequestDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        RequestDecoder { bulky: Bulky::named(&U::full_name()), message: PhantomData }
    }
}

/// Decodes the requests of one call.
#[derive(Debug)]
pub struct RequestDecoder<U> {
    /// None: they hold no lists.
    bulky: Option<Bulky>,
    message: PhantomData<U>,
}

impl<U: Message + Default> Decoder for RequestDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // Without a copy: they lie in one piece. The length is the message's, also of one that came compressed.
        let bytes = bytes.copy_to_bytes(bytes.remaining());
        if let Some(bulky) = self.bulky {
            bulky.check(&bytes).map_err(|excess| excessive(&excess))?;
        }
        U::decode(bytes).map(Some).map_err(|error| malformed(&error))
    }
}

fn excessive(excess: &Excess) -> Status {
    status(&Failure::Invalid(vec![Violation::new(&excess.field, excess.description())]), "")
}

/// Names the field that could not be read. prost's error reads `failed to decode Protobuf message: Event.time:
/// RecommendRequest.history: invalid wire type …`: the fields from the innermost out, each after its message and a dot.
fn malformed(error: &prost::DecodeError) -> Status {
    let text = error.to_string();
    let mut reason = text.strip_prefix("failed to decode Protobuf message: ").unwrap_or(&text);
    let mut fields = Vec::new();
    while let Some((place, rest)) = reason.split_once(": ")
        && let Some((_message, field)) = place.split_once('.')
        && !place.contains(' ')
    {
        fields.push(field);
        reason = rest;
    }
    fields.reverse();
    let violation = Violation::new(fields.join("."), format!("is malformed: {reason}"));
    status(&Failure::Invalid(vec![violation]), "")
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;
    use crate::wire::v1::RecommendRequest;

    fn refused(bytes: &[u8]) -> (Code, String, String) {
        let status = malformed(&RecommendRequest::decode(bytes).unwrap_err());
        let mut named = status.get_details_bad_request().unwrap().field_violations;
        let wrong = named.pop().unwrap();
        (status.code(), wrong.field, wrong.description)
    }

    #[test]
    fn a_malformed_field_is_the_callers_fault_and_named() {
        // Field 3 (history) of 2 bytes: field 3 (time) as a varint, which it is not.
        let (code, field, description) = refused(&[0x1a, 2, 0x18, 1]);
        assert_eq!((code, field.as_str()), (Code::InvalidArgument, "history.time"));
        assert!(description.starts_with("is malformed: invalid wire type"), "{description}");
    }

    #[test]
    fn noise_is_the_callers_fault() {
        let (code, _, description) = refused(&[0xff; 16]);
        assert_eq!(code, Code::InvalidArgument);
        assert!(description.starts_with("is malformed: "), "{description}");
    }
}
