class ForeachBackend:
    name = "foreach"
    reason = "lists"

    def obstacle(self, subject):
        return "not yet"

    def units(self, program, slots, scalars):
        raise AssertionError
