/** The small primes the fingerprint looks at (Nemec et al., "The Return of Coppersmith's Attack", §4.1). */
const primes = [
  3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101,
  103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
] as const

/** For each prime, the powers of 65537 modulo it: the only residues a vulnerable modulus can have. */
const residues = primes.map((prime) => {
  const powers = new Set<number>()
  for (let power = 1; !powers.has(power); power = (power * 65537) % prime) powers.add(power)
  return { prime, powers }
})

const product = primes.reduce((running, prime) => running * BigInt(prime), 1n)

/**
 * Whether an RSA modulus was made by the flawed generator of Infineon's library (CVE-2017-15361), from which
 * the private key can be computed. A sound modulus looks like it once in about 2^27.
 */
export function hasRocaFingerprint(modulus: Uint8Array): boolean {
  const remainder = BigInt(`0x${modulus.toHex()}`) % product
  return residues.every(({ prime, powers }) => powers.has(Number(remainder % BigInt(prime))))
}
