import type { AttestedNodeRecord } from '../datastore/datastore.ts'

/** The node may not be served, and may not attest again until it is deleted. */
export function isBanned(node: AttestedNodeRecord): boolean {
  return node.serialNumber === ''
}

/** The record of a banned node: one without a serial number that could be in use. */
export const asBanned = (node: AttestedNodeRecord): AttestedNodeRecord => ({
  ...node,
  serialNumber: '',
  newSerialNumber: '',
  newExpiresAtSeconds: 0,
})
