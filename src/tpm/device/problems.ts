import { AssayError, type ErrorCode } from '#base/errors.ts'

/** What can be wrong with a TPM, as the `reason` of the errors that tell it. */
export type DeviceProblem =
  | 'tpm-addon-missing'
  | 'tpm-tcti-invalid'
  | 'tpm-tcti-missing'
  | 'tpm-absent'
  | 'tpm-permission'
  | 'tpm-busy'
  | 'tpm-full'
  | 'tpm-slow'
  | 'tpm-connection-lost'
  | 'tpm-locked-out'
  | 'tpm-authorization'
  | 'tpm-not-started'
  | 'tpm-failure-mode'
  | 'tpm-pcr-bank'
  | 'tpm-pcrs-changing'
  | 'tpm-endorsement-certificate'
  | 'tpm-response'
  | 'tpm-error'

/** A problem in an operator's words. */
export interface DeviceProblemExplanation {
  readonly code: ErrorCode
  readonly meaning: string
  readonly remedy: string
}

/** All of them, as `assay tpm doctor` shows them. */
export const deviceProblems: Readonly<Record<DeviceProblem, DeviceProblemExplanation>> = {
  'tpm-addon-missing': {
    code: 'failed-precondition',
    meaning: 'the native part of the agent is not there',
    remedy: 'run scripts/build-addons, or install the package again',
  },
  'tpm-tcti-invalid': {
    code: 'invalid-argument',
    meaning: 'the setting tcti names no way to a TPM',
    remedy: 'use device:/dev/tpmrm0, tabrmd, or swtpm:path=/socket',
  },
  'tpm-tcti-missing': {
    code: 'failed-precondition',
    meaning: 'the library for this kind of connection is not installed',
    remedy: 'install libtss2-tcti-device0, libtss2-tcti-swtpm0 or libtss2-tcti-tabrmd0',
  },
  'tpm-absent': {
    code: 'unavailable',
    meaning: 'there is no TPM',
    remedy:
      'switch the TPM on in the firmware setup, see that the kernel made /dev/tpmrm0, and check tcti',
  },
  'tpm-permission': {
    code: 'failed-precondition',
    meaning: 'the agent may not open the TPM',
    remedy: 'add the agent’s user to the group tss',
  },
  'tpm-busy': {
    code: 'unavailable',
    meaning: 'the TPM is busy, or another program has it open',
    remedy:
      'use /dev/tpmrm0, which programs share, instead of /dev/tpm0; the agent tries again by itself',
  },
  'tpm-full': {
    code: 'unavailable',
    meaning: 'other programs fill the TPM’s few places for keys or sessions',
    remedy: 'use /dev/tpmrm0, or end those programs and run tpm2_flushcontext -t -l -s',
  },
  'tpm-slow': {
    code: 'unavailable',
    meaning: 'the TPM did not answer in time',
    remedy: 'the agent tries again by itself; if it stays, reset the machine’s power',
  },
  'tpm-connection-lost': {
    code: 'unavailable',
    meaning: 'the connection to the TPM broke, or nothing answers at its end',
    remedy: 'the agent tries again by itself; see the kernel log for tpm errors',
  },
  'tpm-locked-out': {
    code: 'unavailable',
    meaning: 'the TPM is in dictionary-attack lockout after wrong passwords of some program',
    remedy: 'wait, or run tpm2_dictionarylockout --clear-lockout',
  },
  'tpm-authorization': {
    code: 'failed-precondition',
    meaning: 'the endorsement hierarchy has a password, and the agent’s is missing or wrong',
    remedy:
      'an agent cannot give one: take the password away, by tpm2_changeauth -c endorsement -p PASSWORD',
  },
  'tpm-not-started': {
    code: 'failed-precondition',
    meaning: 'nobody has started the TPM since its power came on',
    remedy: 'the machine’s firmware should have; with swtpm use --flags startup-clear',
  },
  'tpm-failure-mode': {
    code: 'unavailable',
    meaning: 'the TPM has failed its self-test or cannot write its state, and refuses everything',
    remedy: 'reset the machine’s power; if it stays, the chip is broken',
  },
  'tpm-pcr-bank': {
    code: 'failed-precondition',
    meaning: 'the TPM does not have the PCR bank the server asks for',
    remedy: 'activate the SHA-256 bank in the firmware setup, or by tpm2_pcrallocate',
  },
  'tpm-pcrs-changing': {
    code: 'unavailable',
    meaning: 'the registers were extended again and again while they were quoted',
    remedy: 'do not quote PCR 10 under IMA; the agent tries again by itself',
  },
  'tpm-endorsement-certificate': {
    code: 'failed-precondition',
    meaning: 'the endorsement certificate in the TPM is for another key than the TPM makes',
    remedy:
      'the TPM’s endorsement seed was changed; write the right certificate into the TPM, or replace the chip',
  },
  'tpm-response': {
    code: 'internal',
    meaning: 'the TPM’s answer is not well-formed, or was altered on its way',
    remedy: 'suspect the bus between processor and TPM; the agent tries again by itself',
  },
  'tpm-error': {
    code: 'internal',
    meaning: 'the TPM refused a command',
    remedy: 'run assay tpm doctor, and report the message',
  },
}

/** The error for `problem`; `detail` says what happened. */
export function deviceProblem(
  problem: DeviceProblem,
  detail: string,
  options?: ErrorOptions,
): AssayError {
  const { code, meaning, remedy } = deviceProblems[problem]
  const message = `cannot use the TPM: ${meaning} (${detail}); ${remedy}`
  return new AssayError(code, message, { ...options, reason: problem })
}
