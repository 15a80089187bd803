/** TPMS_CLOCK_INFO and the firmware version out of an accepted quote (TPM 2.0 Part 2 §10.11.1). */
export interface TpmClock {
  /** How often the TPM was reset (powered up) since it was last cleared. */
  readonly resetCount: number
  /** How often it was restarted or resumed since the last reset. */
  readonly restartCount: number
  /** Milliseconds the TPM has been powered since it was last cleared. */
  readonly clock: bigint
  readonly firmwareVersion: bigint
}

/** What is known of one endorsement key. */
export interface TpmInventoryRecord {
  /** What an operator has said. `pending`: the key has knocked, and nobody has said anything. */
  readonly state: 'allowed' | 'pending' | 'denied' | 'banned'
  /** The operator's name for the node; may be empty. */
  readonly nodeName: string
  /** The clock of the last accepted quote; undefined before the first, and again after a new approval. */
  readonly clock: TpmClock | undefined
}

/**
 * The endorsement keys a server knows, each by the lower-case hex of SHA-256 over its SubjectPublicKeyInfo.
 * `recordClock` is one transaction, so that of two attestations at once the older cannot overwrite the newer.
 */
export interface TpmInventory {
  record(endorsementKeyHash: string): Promise<TpmInventoryRecord | undefined>
  /**
   * Notes that an unknown or pending key asks to join, for an operator to decide. `description` is what the
   * TPM says of itself: a claim of at most 200 printable characters.
   *
   * @throws AssayError `resource-exhausted` when too many keys are pending already.
   */
  knock(endorsementKeyHash: string, address: string, description: string): Promise<void>
  /**
   * Stores the clock that `advance` makes of the present record, together with the address the node was seen
   * at. A key that is not recorded yet gets a record in state `allowed`.
   *
   * @throws what `advance` throws, having changed nothing.
   */
  recordClock(
    endorsementKeyHash: string,
    address: string,
    advance: (present: TpmInventoryRecord | undefined) => TpmClock,
  ): Promise<void>
}
