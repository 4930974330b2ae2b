"""From stored transactions with labels to a challenger."""
