//! What passes through linear layers while somebody listens: their inputs, and a place where the gradient of their outputs
//! can be read after the backward pass.

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;

use burn::module::ParamId;
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// One pass through one linear layer.
#[derive(Debug, Clone)]
pub struct Heard<B: Backend> {
    /// The layer's weight.
    pub weight: ParamId,
    /// What went in, `[rows, inputs]`.
    pub inputs: Tensor<B, 2>,
    /// Zeros that were added to what came out, `[rows, outputs]`: their gradient is the output's.
    pub outputs: Tensor<B, 2>,
}

thread_local! {
    /// What was heard so far, a `Vec<Heard<B>>` of the listener's backend; none while nobody listens.
    static LISTENER: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

/// Listens on this thread to every pass of backend `B` through a linear layer, until it is dropped.
#[derive(Debug)]
pub struct Listener<B: Backend> {
    // Bound to the thread that it listens on.
    backend: PhantomData<*const B>,
}

impl<B: Backend> Listener<B> {
    /// Begins to listen. Of two listeners of one thread the later hears all.
    pub fn start() -> Self {
        LISTENER.with(|listener| *listener.borrow_mut() = Some(Box::new(Vec::<Heard<B>>::new())));
        Self { backend: PhantomData }
    }

    /// Stops, and answers what was heard.
    pub fn stop(self) -> Vec<Heard<B>> {
        let heard = LISTENER.with(|listener| listener.borrow_mut().take());
        let heard = heard.and_then(|heard| heard.downcast::<Vec<Heard<B>>>().ok()).map(|heard| *heard);
        heard.unwrap_or_default()
    }
}

impl<B: Backend> Drop for Listener<B> {
    fn drop(&mut self) {
        LISTENER.with(|listener| listener.borrow_mut().take());
    }
}

/// The layer's output, heard by who listens.
pub(super) fn through<B: Backend>(layer: &Linear<B>, inputs: Tensor<B, 2>) -> Tensor<B, 2> {
    let outputs = layer.forward(inputs.clone());
    LISTENER.with(|listener| {
        let mut listener = listener.borrow_mut();
        let Some(heard) = listener.as_mut().and_then(|heard| heard.downcast_mut::<Vec<Heard<B>>>()) else {
            return outputs;
        };
        let zeros = Tensor::zeros(outputs.dims(), &outputs.device()).require_grad();
        heard.push(Heard { weight: layer.weight.id, inputs, outputs: zeros.clone() });
        outputs + zeros
    })
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};
    use burn::nn::LinearConfig;
    use burn::tensor::Distribution;

    use super::*;

    type B = Autodiff<Flex>;

    #[test]
    fn a_listener_hears_inputs_and_the_gradient_of_outputs_and_changes_nothing() {
        let device = Default::default();
        let layer = LinearConfig::new(3, 2).init::<B>(&device);
        let inputs = Tensor::<B, 2>::random([5, 3], Distribution::Normal(0.0, 1.0), &device);
        let plain = through(&layer, inputs.clone());
        let listener = Listener::<B>::start();
        let outputs = through(&layer, inputs.clone());
        let heard = listener.stop();
        assert_eq!(plain.into_data(), outputs.clone().into_data());
        assert_eq!(heard.len(), 1);
        assert_eq!(heard[0].inputs.clone().into_data(), inputs.into_data());
        let gradients = outputs.clone().powf_scalar(2.0).sum().backward();
        let found = heard[0].outputs.grad(&gradients).unwrap().into_data();
        found.assert_approx_eq::<f32>(&(outputs.inner() * 2.0).into_data(), Default::default());
    }

    #[test]
    fn nobody_hears_another_backend_or_what_comes_after() {
        let device = Default::default();
        let layer = LinearConfig::new(3, 2).init::<Flex>(&device);
        let inputs = Tensor::<Flex, 2>::ones([1, 3], &device);
        let listener = Listener::<B>::start();
        through(&layer, inputs.clone());
        assert!(listener.stop().is_empty());
        through(&layer, inputs);
        assert!(LISTENER.with(|listener| listener.borrow().is_none()));
    }
}
