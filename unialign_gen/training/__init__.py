"""Training of heads, and of towers where asked, from cached features: `unialign-gen train CONFIG`."""
