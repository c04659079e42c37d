"""The platform's behaviour: operations, delivery and limits. No HTTP in here."""
