//! Whole messages: ours, the RFCs' and strongSwan's.
