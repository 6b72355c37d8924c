// Hands the samples of the first channel on, in blocks of about a twentieth of a second.
class Tap extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(2048);
    this.filled = 0;
  }
  process([input]) {
    if (!input.length) return true;
    this.block.set(input[0], this.filled);
    this.filled += input[0].length;
    if (this.filled === this.block.length) {
      this.port.postMessage(this.block.slice());
      this.filled = 0;
    }
    return true;
  }
}
registerProcessor("tap", Tap);
