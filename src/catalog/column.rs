//! A column of whole numbers, as many bytes each as the largest needs.

/// Numbers below 2^32, one an item. Grows at the end; its bytes an entry grow with the numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    /// Bytes an entry, 1 to 4.
    pub(super) width: usize,
    /// Little-endian.
    pub(super) bytes: Vec<u8>,
}

impl Default for Column {
    fn default() -> Self {
        Self { width: 1, bytes: Vec::new() }
    }
}

impl Column {
    /// How many numbers there are.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() / self.width
    }

    pub(super) fn push(&mut self, value: u32) {
        while self.width < 4 && value >> (8 * self.width) != 0 {
            self.widen();
        }
        self.bytes.extend_from_slice(&value.to_le_bytes()[..self.width]);
    }

    /// The number at a place; zero past the end.
    pub(super) fn get(&self, at: usize) -> u32 {
        let entry = self.bytes.get(at * self.width..(at + 1) * self.width).unwrap_or(&[]);
        entry.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte))
    }

    /// The numbers at these places, in their order.
    pub(super) fn in_order(&self, places: &[u32]) -> Self {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for place in places.iter().map(|&place| place as usize * self.width) {
            bytes.extend_from_slice(&self.bytes[place..place + self.width]);
        }
        Self { width: self.width, bytes }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.bytes
            .chunks_exact(self.width)
            .map(|entry| entry.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte)))
    }

    fn widen(&mut self) {
        let wider = self.width + 1;
        let mut bytes = Vec::with_capacity(self.len() * wider);
        for entry in self.bytes.chunks_exact(self.width) {
            bytes.extend_from_slice(entry);
            bytes.push(0);
        }
        (self.width, self.bytes) = (wider, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_keeps_its_numbers_as_it_widens() {
        let mut column = Column::default();
        let values = [0, 255, 7, 256, 65_535, 65_536, 1, u32::MAX, 3];
        values.iter().for_each(|&value| column.push(value));
        assert_eq!(column.iter().collect::<Vec<_>>(), values);
        assert!(values.iter().enumerate().all(|(at, &value)| column.get(at) == value));
        assert_eq!((column.width, column.len(), column.get(9)), (4, 9, 0));
        let ordered = column.in_order(&[8, 0, 7]);
        assert_eq!(ordered.iter().collect::<Vec<_>>(), [3, 0, u32::MAX]);
        let mut narrow = Column::default();
        (0..300).for_each(|value| narrow.push(value % 256));
        assert_eq!((narrow.width, narrow.bytes.len()), (1, 300));
    }
}
